"""Names of other libraries that are not part of their documented API, and the file that uses each.

If a new version of a library removes one, the test fails with the file that needs a change.
"""

import inspect
from importlib import import_module
from importlib.metadata import version

import pytest
import torch


def _has(path: str):
    """Whether `module:attribute.attribute` is there."""
    module, _, names = path.partition(":")
    found = import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found


def _counts_finite_gradients():
    found = torch.zeros(())
    gradients = [torch.ones(2), torch.tensor([1.0, float("nan")])]
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, torch.ones(()))
    assert found == 1 and torch.equal(gradients[0], torch.ones(2))


def _interpolates():
    averages = [torch.zeros(2)]
    torch._foreach_lerp_(averages, [torch.ones(2)], 0.25)
    assert torch.equal(averages[0], torch.full((2,), 0.25))


def _fused_optimizers_obey_a_scaler():
    weight = torch.nn.Parameter(torch.ones(2))
    assert torch.optim.Adam([weight], fused=True)._step_supports_amp_scaling
    assert not getattr(torch.optim.Adam([weight]), "_step_supports_amp_scaling", False)
    fused = torch.optim.Adam([weight], fused=True)
    weight.grad, fused.found_inf = torch.ones(2), torch.ones(())
    fused.step()
    assert torch.equal(weight.detach(), torch.ones(2))  # it skipped its step


def _compiled_modules_can_be_put_back():
    layer = torch.nn.Linear(2, 2)
    layer.compile(backend=lambda graph, inputs: pytest.fail("it was compiled"))
    layer._compiled_call_impl = None
    layer(torch.ones(1, 2))


def _global_step_is_a_progress():
    from pytorch_lightning import Trainer

    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    progress.increment_ready()
    progress.increment_completed()
    assert progress.total.ready == progress.total.completed == 1


def _hooks_that_are_overridden_can_be_told():
    from pytorch_lightning import Callback
    from pytorch_lightning.utilities.model_helpers import is_overridden

    class Listener(Callback):
        def on_before_optimizer_step(self, *_):
            pass

    assert is_overridden("on_before_optimizer_step", Listener(), Callback)
    assert not is_overridden("on_after_backward", Listener(), Callback)


def _a_launcher_has_its_processes():
    launcher = _has("pytorch_lightning.strategies.launchers:_SubprocessScriptLauncher")
    assert "self.procs" in inspect.getsource(launcher)


def _a_view_has_a_model():
    workspaces = pytest.importorskip("wandb_workspaces.workspaces")
    assert callable(workspaces.Workspace._to_model)


def _spectral_norm_has_its_class():
    from torch.nn.utils.parametrizations import _SpectralNorm, spectral_norm

    layer = spectral_norm(torch.nn.Linear(2, 2))
    assert isinstance(layer.parametrizations.weight[0], _SpectralNorm)


BORROWED = {
    "torch._amp_foreach_non_finite_check_and_unscale_": (
        "torch", "training/guards.py", _counts_finite_gradients
    ),
    "Optimizer._step_supports_amp_scaling and .found_inf": (
        "torch", "training/guards.py", _fused_optimizers_obey_a_scaler
    ),
    "torch._foreach_lerp_": ("torch", "training/callbacks/averaging.py", _interpolates),
    "parametrizations._SpectralNorm": ("torch", "training/checks.py", _spectral_norm_has_its_class),
    "Module._compiled_call_impl": (
        "torch", "training/acceleration.py", _compiled_modules_can_be_put_back
    ),
    "manual_optimization.optim_step_progress": (
        "pytorch-lightning", "training/module.py", _global_step_is_a_progress
    ),
    "model_helpers.is_overridden": (
        "pytorch-lightning", "training/module.py", _hooks_that_are_overridden_can_be_told
    ),
    "launcher.procs": ("pytorch-lightning", "training/trainer.py", _a_launcher_has_its_processes),
    "Workspace._to_model": ("wandb-workspaces", "commands/wandb.py", _a_view_has_a_model),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pydantic", "ignore:Pydantic V1")  # theirs
@pytest.mark.parametrize("name", BORROWED)
def test_a_private_name_of_another_library_still_exists(name):
    library, place, check = BORROWED[name]
    try:
        check()
    except (AssertionError, AttributeError, ImportError, TypeError, RuntimeError) as error:
        pytest.fail(
            f"{name} has changed in {library} {version(library)}: genbench/{place} needs it "
            f"({type(error).__name__}: {error})"
        )
