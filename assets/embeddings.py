"""Group embed: every 30 s window through the encoder, once, into the store."""

import warnings
from collections.abc import Iterator

import dagster as dg

from assets.code_versions import code_version
from assets.common import OWNERS
from assets.failures import explained, retried
from assets.ingest import waveform_catalog
from assets.metadata import metadata
from assets.resources import Project
from pipeline import stages

# `data_version` of an output is beta in Dagster 1.13, which is pinned; a graph asset has no other way to give one.
warnings.filterwarnings("ignore", message="Parameter `data_version`")


@dg.op(out=dg.DynamicOut(list), ins={"waveform_catalog": dg.In(dg.Nothing)})
def plan_batches(project: Project) -> Iterator[dg.DynamicOutput[list]]:
    """List the patients whose records, encoder or preprocessing changed, in batches of minutes of work."""
    with explained("ppg_embeddings"):
        batches = stages.plan_embedding_batches(project.workspace(), project.config())
    for number, patient_keys in enumerate(batches):
        yield dg.DynamicOutput(patient_keys, mapping_key=f"batch_{number:04d}")


@dg.op(pool="gpu")
def embed_batch(project: Project, patient_keys: list) -> dict:
    """Embed one batch of patients and commit it to the store."""
    with retried(), explained("ppg_embeddings"):
        return dict(stages.embed_patient_batch(project.workspace(), project.config(), patient_keys))


@dg.op(out=dg.Out(dg.Nothing))
def commit_manifest(context: dg.OpExecutionContext, project: Project, batches: list) -> dg.Output:
    """Retire patients that vanished and report what the store now holds; the manifest's hash is the data version."""
    with explained("ppg_embeddings"):
        summary = stages.finish_embedding(project.workspace(), project.config(), batches)
    version = dg.DataVersion(summary.data_version or "")
    return dg.Output(None, metadata=dict(metadata(summary, project.config().name)), data_version=version)


@dg.graph_asset(
    group_name="embed",
    kinds={"pytorch", "zarr"},
    owners=OWNERS,
    code_version=code_version(stages.ppg_embeddings.__module__),
    ins={"waveform_catalog": dg.AssetIn(waveform_catalog.key, dagster_type=dg.Nothing)},
    description="One embedding for each usable 30 s window of PPG, in a Zarr store with a manifest. Only patients "
    "whose records, encoder or preprocessing changed are embedded again.\n\n"
    "* **from recording to embedding**: what is left of the recorded windows after each rule\n"
    "* **windows by quality**: spectral concentration near 1 is a clean pulse, near 0 noise\n"
    "* **patients retired**: their recordings vanished; the embeddings are kept and come back with the recordings",
)
def ppg_embeddings(waveform_catalog: None) -> None:
    """Plan, embed batch by batch, commit."""
    return commit_manifest(plan_batches(waveform_catalog).map(embed_batch).collect())
