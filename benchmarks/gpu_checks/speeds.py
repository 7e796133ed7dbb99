"""How fast a GPU trains; these figures are told and nothing is demanded. Run while nothing else does."""

from pathlib import Path

from benchmarks.gpu_checks.common import check, fit, memory_given_back, need_gpu

SIZE_32 = ["network=conv", "dataset.image_size=32", "dataset.upscale=true", "budget.batch_size=64"]
SPEEDS = {  # what: (overrides, steps)
    "gan mlp": (["model=gan", "budget.batch_size=64"], 2000),
    "gan conv 32": (["model=gan", *SIZE_32], 1000),
    "gan conv 32, group norm": (["model=gan", *SIZE_32, "network.decoder_norm=group"], 1000),
    "vae-gan conv 32": (["model=vae-gan", *SIZE_32], 500),
}
CONSTANT = "schedule=constant"  # a captured step keeps its rate; the tuned ones have another
HOWS = {
    "float32": ["trainer.precision=32-true"],
    "bf16": ["trainer.precision=bf16-mixed"],
    "bf16, graph": ["trainer.precision=bf16-mixed", "trainer.cuda_graph=true"],
}


@check()
def speeds(folder: Path) -> str:
    """Images per second of whole trainings: float32, bf16, bf16 from a CUDA graph."""
    need_gpu()
    said = []
    for what, (overrides, steps) in SPEEDS.items():
        figures = []
        for how, settings in HOWS.items():
            with memory_given_back():
                made = fit(folder, *overrides, *settings, CONSTANT, steps=steps)
                figures.append(f"{how} {made.speed:,.0f}")
        said.append(f"{what}: {', '.join(figures)}")
    return "; ".join(said)
