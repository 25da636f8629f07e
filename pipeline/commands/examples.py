"""One example of every sub-command, as its help shows it: what stands after the sub-command's name."""

_OWN = "--waveforms /data/waveforms --labs /data/labs --artifacts /data/uniphy"

EXAMPLES: dict[str, str] = {
    "": "all --experiment demo",
    "cohort": "--experiment demo",
    "catalog": _OWN,
    "embed": f"{_OWN} --set embedding.device=cuda",
    "labs": _OWN,
    "split": "--experiment demo",
    "normalize": "--experiment demo",
    "align": "--experiment demo",
    "score": "--experiment demo",
    "evaluate": "--experiment demo",
    "report": "--experiment demo",
    "train": "--experiment demo --method mt_pcs --set training.epochs=20",
    "train_encoder": f"{_OWN} --set encoder_training.epochs=5",
    "all": _OWN,
    "table1": f"--experiment paper {_OWN}",
    "result-delay": "--experiment demo",
    "cross-validate": f"{_OWN} --method mt_assim --folds 5",
    "predict": (
        "--checkpoint artifacts/demo/checkpoints/mt_pcs/seed0 --waveforms /data/new/waveforms "
        "--labs /data/new/labs --artifacts /tmp/new --out estimates.parquet"
    ),
    "plot": "estimates.parquet --row 1 --out trajectory",
    "doctor": "",
    "config": "--experiment paper --set training.epochs=20",
    "store": "ls --experiment demo",
    "store ls": "--experiment demo",
    "store verify": "--experiment demo",
    "store gc": "--experiment demo --older-than-hours 1 --dry-run",
    "store forget": "--experiment demo < patient.txt",
    "pretrain": "--data /data/waveforms --scale 1m --epochs 100 --out artifacts/pretraining",
    "probe": "--encoder ppg_gpt_1m_long --bidmc /data/bidmc --half choose --out probe.json",
    "projection": "--encoder ppg_gpt_1m_long+layers+spread --width 256 --data /data/waveforms",
    "encoder-parts": "--encoder artifacts/pretraining/model.safetensors --out parts",
    "lab-baselines": "--labs /data/mimic3",
    "recovery": "--artifacts /data/uniphy",
    "scale-study": "--encoder ppg_gpt_1m --encoder ppg_gpt_1m_long+layers+spread --patients 160",
    "emulator": "--experiment default --patients 1500",
    "emulator-check": "--patients 160 --recipe lines",
    "rehearse": "--patients 500 --days 7",
}
"""By the sub-command's words; "" is the command itself."""
