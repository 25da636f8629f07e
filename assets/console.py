"""Progress on a terminal: what a person wants to read while the job runs, and nothing else."""

import logging
import time
from typing import Any

import dagster as dg

SHOWN_EVENTS = {"STEP_START": "started", "STEP_SUCCESS": "done", "STEP_UP_FOR_RETRY": "will be retried"}
FAILURE_PREFIX = f"{dg.Failure.__module__}.Failure: "


class ProgressFormatter(logging.Formatter):
    """One line a message: minutes since the start, the asset, and what it says."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        elapsed = time.monotonic() - self._began
        meta = getattr(record, "dagster_meta", None) or {}
        step = meta.get("step_key") or ""
        event = getattr(record, "dagster_event", None)
        kind = getattr(event, "event_type_value", None)
        text = SHOWN_EVENTS.get(kind, "") if kind else meta.get("orig_message") or record.getMessage()
        if kind == "STEP_FAILURE" and event is not None:
            text = _root_cause(event.step_failure_data.error)
        return f"{int(elapsed // 60):3d}:{int(elapsed % 60):02d}  {step.split('[')[0]:<22} {text}"


def _root_cause(error: Any) -> str:
    """Return the message of the innermost error: what went wrong, not where Dagster met it."""
    while error is not None and error.cause is not None:
        error = error.cause
    return "failed" if error is None else error.message.strip().removeprefix(FAILURE_PREFIX)


def _is_worth_showing(record: logging.LogRecord) -> bool:
    event = getattr(record, "dagster_event", None)
    if event is None:
        text = (getattr(record, "dagster_meta", None) or {}).get("orig_message") or record.getMessage()
        return record.levelno >= logging.INFO and not text.startswith("Dependencies for step")
    return event.event_type_value in (*SHOWN_EVENTS, "STEP_FAILURE")


def _make_console(init_context: dg.InitLoggerContext) -> logging.Logger:
    """Return the logger that prints progress to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(ProgressFormatter())
    handler.addFilter(_is_worth_showing)
    logger = logging.Logger("uniphy", level=logging.DEBUG)  # noqa: LOG001 - Dagster wants one outside the tree
    logger.addHandler(handler)
    return logger


console = dg.LoggerDefinition(_make_console, description="Readable progress for the terminal.")
