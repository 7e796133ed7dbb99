"""Images per second of training on two CPU ranks against one, the whole batch the same.

    python benchmarks/ranks.py [--rounds 5] [--json]

R1  VAE, convolutional, group norm, 28 x 28 digits, batches of 128
R2  GAN, the same networks

A side is a whole `genbench train` with one thread per rank; they take turns, and the ratio is the
median over the rounds of the images per second that their records tell: wall time, so that two free
cores are needed. 2 would be perfect.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
METRICS = ["frechet", "kernel", "inception_score", "neighbours", "class_balance", "copy_rate"]
COMMON = [
    "network=conv",
    "dataset=mnist",
    "network.width=32",
    "network.decoder_norm=group",
    "budget.batch_size=128",
    "budget.images=12800",
    "trainer=smoke",
    "trainer.samples=0",
    "evaluation.num_samples=64",
    *(f"~evaluation.metrics.{name}" for name in METRICS),
    "~evaluation.likelihoods.bounds",
    "logger=csv",
]
MODELS = {"R1": "vae", "R2": "gan"}


def lap(model: str, ranks: int, data: Path) -> float:
    """Images per second of one run."""
    with tempfile.TemporaryDirectory() as outputs:
        paths = {"GENBENCH_OUTPUTS": outputs, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "genbench", "train", f"model={model}", *COMMON]
        subprocess.run(
            [*command, f"paths.data={data}", f"trainer.devices={ranks}"],
            env=os.environ | paths,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        (record,) = Path(outputs).glob("*/result.json")
        return float(json.loads(record.read_text())["cost"]["train_images_per_second"])


def measure(rounds: int) -> list[dict[str, Any]]:
    from benchmarks.sides import CACHE, pictures

    pictures("vae", None)
    data = CACHE / "idx"
    rows = []
    for name, model in MODELS.items():
        pairs = [(lap(model, 1, data), lap(model, 2, data)) for _ in range(rounds)]
        ratios = [two / one for one, two in pairs]
        rows.append(
            {
                "id": name,
                "what": f"{model}, images/s on 2 CPU ranks / on 1",
                "one": statistics.median(one for one, _ in pairs),
                "two": statistics.median(two for _, two in pairs),
                "ratio": statistics.median(ratios),
                "low": min(ratios),
                "high": max(ratios),
                "demand": None,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = measure(arguments.rounds)
    if arguments.json:
        json.dump({"rounds": arguments.rounds, "rows": rows}, sys.stdout)
        return
    for row in rows:
        print(
            f"{row['id']}  {row['what']:<40} {row['one']:8.0f} {row['two']:8.0f} images/s"
            f"  {row['ratio']:.2f} ({row['low']:.2f} - {row['high']:.2f})"
        )


if __name__ == "__main__":
    main()
