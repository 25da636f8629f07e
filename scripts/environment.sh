# Sourced at the end of .venv/bin/activate (make setup adds the line); plain POSIX shell.
# DAGSTER_HOME holds runs and schedules; scripts/bin comes first on PATH so that `dagster asset ...` finds
# the project's definitions without -m (dagster 1.13 reads neither workspace.yaml nor pyproject.toml there).
_uniphy_root=$(cd "$VIRTUAL_ENV/.." && pwd)
export DAGSTER_HOME="${DAGSTER_HOME:-$_uniphy_root/.dagster}"
mkdir -p "$DAGSTER_HOME"
[ -e "$DAGSTER_HOME/dagster.yaml" ] || cp "$_uniphy_root/scripts/dagster.yaml" "$DAGSTER_HOME/dagster.yaml"
case ":$PATH:" in
  *":$_uniphy_root/scripts/bin:"*) ;;
  *) PATH="$_uniphy_root/scripts/bin:$PATH"; export PATH ;;
esac
unset _uniphy_root
# Threads that wait sleep instead of spinning: measured 4 to 5 times faster training where other programs run too.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
