"""CUDA graphs and compiled networks: the same training, or a UserMistake."""

import contextlib
from unittest import mock

import pytest
import torch

from fixtures.trainers import FEW, change_pace, engine, trained
from genbench.errors import UserMistake
from genbench.training import acceleration
from genbench.training.callbacks.averaging import Averaging
from genbench.training.cuda_graph import Capture, make_capturable
from genbench.training.environment import parameter_counts

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize("model", ["gan", "vae-gan"])
def test_a_replayed_step_computes_what_an_eager_step_does(tmp_path, cache, model):
    """On a CPU a replay is the step itself, on the buffer that a graph would read from."""

    settings = [f"model={model}"]
    plain = trained(engine(tmp_path / "a", cache, *settings))
    made = engine(tmp_path / "b", cache, *settings)
    change_pace(made, capture=Capture(record=lambda work, generator: work))
    replayed = trained(made)
    assert all(torch.equal(value, replayed[0][name]) for name, value in plain[0].items())
    assert plain[1:] == replayed[1:]
    assert len(plain[1]) >= 4 and plain[2] == FEW
    assert made.training.pace.capture is None  # its memory is free for the scores
    assert all(parameter.grad is None for parameter in made.training.model.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["vae", "gan", "wgan-gp", "vae-gan"])
def test_a_captured_run_has_the_numbers_of_an_eager_one(tmp_path, cache, model):
    runs = [
        trained(
            engine(
                tmp_path / str(graph),
                cache,
                f"model={model}",
                "trainer.accelerator=gpu",
                "trainer.precision=32-true",
                f"trainer.cuda_graph={graph}",
            )
        )
        for graph in (False, True)
    ]
    assert all(torch.equal(value, runs[1][0][name]) for name, value in runs[0][0].items())
    assert runs[0][1:] == runs[1][1:]


def test_a_step_is_captured_on_the_stream_of_the_steps_before(monkeypatch):
    made, streams = Capture(), []
    made._aside = "the stream of eleven steps"

    @contextlib.contextmanager
    def capturing(graph, stream, capture_error_mode):
        # another thread may pin memory for a loader meanwhile
        streams.append((stream, capture_error_mode))
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", mock.MagicMock())
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    made._record(lambda: None, torch.Generator())
    assert streams == [("the stream of eleven steps", "thread_local")]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("full"), torch.OutOfMemoryError),  # is told with trainer.accumulate
        (RuntimeError("operation not permitted"), UserMistake),
    ],
)
def test_memory_that_runs_out_while_a_step_is_captured_is_no_step_that_cannot_be(
    monkeypatch, error, told
):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", mock.MagicMock())
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    with pytest.raises(told):
        Capture()._record(mock.Mock(side_effect=error), torch.Generator())


def test_all_steps_before_a_capture_are_on_one_stream(monkeypatch):
    """PyTorch keeps memory for each stream."""
    made, streams = Capture(), []
    for name in ("current_stream", "Stream"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: mock.Mock(kind=name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "stream", lambda stream: streams.append(stream) or contextlib.nullcontext()
    )
    for _ in range(3):
        made.step([torch.ones(1)], lambda batch: None, torch.Generator(), lambda *_: None)
    assert len({*streams}) == 1 and streams[0].kind == "Stream"


@pytest.mark.parametrize(
    ("words", "device", "ranks", "parts", "precision"),
    [
        ("this run is on a CPU", CPU, 1, 1, "32-true"),
        ("this run has 2", GPU, 2, 1, "32-true"),
        ("takes it in parts", GPU, 1, 4, "32-true"),
        ("the loss scale of 16-mixed", GPU, 1, 1, "16-mixed"),
    ],
)
def test_a_cuda_graph_is_refused_where_a_replay_would_differ(
    words, device, ranks, parts, precision
):
    with pytest.raises(UserMistake, match=f"{words}.*trainer.cuda_graph=false"):
        acceleration.check_graph(device, ranks, parts, precision, scheduled=False)
    acceleration.check_graph(GPU, 1, 1, "bf16-mixed", scheduled=False)
    with pytest.raises(UserMistake, match="schedule=constant"):
        acceleration.check_graph(GPU, 1, 1, "bf16-mixed", scheduled=True)


def test_optimizers_that_count_on_the_host_are_not_captured():
    weights = [torch.nn.Parameter(torch.ones(2))]
    for optimizer in (torch.optim.SGD(weights), torch.optim.Adam(weights)):
        with pytest.raises(UserMistake, match=r"the decoder's .* fused=true"):
            make_capturable({"decoder": optimizer}, captured=True)
    adam = torch.optim.Adam(weights, fused=True)
    for captured in (True, False):  # a later trainer of the run may do without
        make_capturable({"decoder": adam}, captured)
        assert adam.param_groups[0]["capturable"] is captured


def test_compiling_what_is_differentiated_twice_is_refused(tmp_path, cache):
    for model in ("wgan-gp", "gan"):
        with pytest.raises(UserMistake, match=r"differentiated twice.*trainer.compile=false"):
            engine(tmp_path, cache, f"model={model}", "trainer.compile=true")


@pytest.mark.slow
def test_compiled_networks_train_as_eager_ones_and_keep_their_parameter_names(tmp_path, cache):
    """Traced with a backend that runs the graph as it is, without compiling it."""
    plain = engine(tmp_path / "a", cache, "model=gan", "model.r1_gamma=0")
    counts, names = (
        parameter_counts(plain.training.model),
        [n for n, _ in plain.training.model.named_parameters()],
    )
    expected = trained(plain)[0]
    made = engine(tmp_path / "b", cache, "model=gan", "model.r1_gamma=0")
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    with acceleration.compiling(made.training.model, True, backend):
        assert parameter_counts(made.training.model) == counts
        found = trained(made)[0]
    assert graphs
    assert [n for n, _ in made.training.model.named_parameters()] == names
    assert found.keys() == expected.keys()
    assert all(torch.allclose(v, found[k], rtol=1e-4, atol=1e-5) for k, v in expected.items())
    seen = len(graphs)
    made.training.model.sample(torch.zeros(3, made.training.model.latent_dim))
    assert len(graphs) == seen  # scored as written


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_the_average_of_compiled_networks_equals_that_of_eager_ones(tmp_path, cache, network):
    """The average is a copy of the decoder, made while that is compiled."""
    found = []
    for compiled in (False, True):
        settings = ["model=vae", f"network={network}", "network.width=16"]
        made = engine(tmp_path / str(compiled), cache, *settings)
        averaging = Averaging("1k")
        made.trainer.callbacks.append(averaging)
        graphs: list[torch.fx.GraphModule] = []

        def backend(graph, inputs, graphs=graphs):
            graphs.append(graph)
            return graph.forward

        with acceleration.compiling(made.training.model, compiled, backend):
            trained(made)
        assert bool(graphs) == compiled
        with averaging.applied(made.training.model):
            sampled = made.training.model.sample(torch.zeros(3, made.training.model.latent_dim))
        found.append((averaging.state_dict()["average"], {"sample": sampled}))
        assert not torch.equal(
            sampled, made.training.model.sample(torch.zeros(3, made.training.model.latent_dim))
        )
    for written, compiled in zip(*found, strict=True):
        assert written.keys() == compiled.keys()
        for name, value in written.items():
            torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_compiler_of_this_machine_gives_equal_gradients():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    images = torch.randn(5, 8)

    def gradients() -> list[torch.Tensor]:
        return [*torch.autograd.grad(network(images).square().sum(), list(network.parameters()))]

    expected, names = gradients(), list(network.state_dict())
    with acceleration.compiled([network]):
        found = gradients()
        assert list(network.state_dict()) == names
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(expected, found, strict=True))
