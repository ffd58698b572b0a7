"""The private training script: its gradients, that it resumes, several processes, its options."""

import csv
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from test.oracle import assert_close
from tutorials import train_dp_sgd
from tutorials.train_dp_sgd import Accountant, chunks, main, make_clipped_sum, make_network


@pytest.fixture
def short(tmp_path):
    def run(*options, output="out"):
        given = ["--output", str(tmp_path / output), "--batch-size", "400", *options]
        return main(given)

    return run


def loop(network, images, labels, max_norm):
    """Clipped gradients one by one, in plain PyTorch."""
    total = {name: torch.zeros_like(each) for name, each in network.named_parameters()}
    clipped = 0
    for image, label in zip(images, labels, strict=True):
        loss = cross_entropy(network(image[None]), label[None])
        found = torch.autograd.grad(loss, list(network.parameters()))
        norm = torch.cat([part.flatten() for part in found]).norm()
        clipped += bool(norm > max_norm)
        for part, name in zip(found, total, strict=True):
            total[name] += part * min(1.0, max_norm / norm.item())
    return total, clipped


@pytest.mark.parametrize("max_norm", [1e6, 1.0])
def test_clipped_gradients_are_those_of_a_loop(max_norm):
    images, labels = torch.rand(20, 1, 8, 8), torch.randint(0, 10, (20,))
    network = make_network(images, 10)
    clipped_sum = make_clipped_sum(network, max_norm, "cpu", amp=False)
    parameters = {name: each.detach() for name, each in network.named_parameters()}
    total = {name: torch.zeros_like(each) for name, each in parameters.items()}
    clipped = losses = 0.0
    for piece, weights in chunks(torch.arange(17), 8):  # the last one is filled up
        found = clipped_sum(parameters, images[piece], labels[piece], weights)
        total = {name: total[name] + part for name, part in found[0].items()}
        losses, clipped = losses + found[1], clipped + found[2]
    expected, count = loop(network, images[:17], labels[:17], max_norm)
    assert_close(total, expected, 1e-4)
    assert_close(
        losses, nn.CrossEntropyLoss(reduction="sum")(network(images[:17]), labels[:17]), 1e-4
    )
    assert clipped == count


def test_learns_and_resumes_where_it_was(short, tmp_path):
    rows = short("--epochs", "6", "--noise", "0.5")
    assert rows[-1]["accuracy"] > 0.5 > rows[0]["accuracy"]
    assert rows[-1]["steps"] == 6 * rows[0]["steps"]
    short("--epochs", "4", "--noise", "0.5", output="cut")
    resumed = short("--epochs", "6", "--noise", "0.5", "--resume", output="cut")
    for mine, whole in zip(resumed, rows, strict=True):
        for row in (mine, whole):
            del row["seconds"]
        if whole["epsilon"] is None:  # without opacus
            assert mine.pop("epsilon") is whole.pop("epsilon")
        assert mine == pytest.approx(whole, rel=1e-3)
    with (tmp_path / "cut" / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5", "6"]
    assert (tmp_path / "cut" / "metrics.png").stat().st_size > 1000


def test_nothing_to_resume_from(short):
    with pytest.raises(SystemExit, match="there is no .*checkpoint.pt to resume from"):
        short("--resume")


def test_mixed_precision(short):
    assert short("--epochs", "2", "--amp")[-1]["loss"] < 3


@pytest.mark.slow
def test_compiled(short):
    plain = short("--epochs", "2", "--noise", "0.1")
    compiled = short("--epochs", "2", "--noise", "0.1", "--jit", output="jit")
    assert compiled[-1]["loss"] == pytest.approx(plain[-1]["loss"], rel=1e-2)


def test_folder_of_images(short, tmp_path):
    from matplotlib.image import imsave

    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(10):
            pixels = torch.rand(12, 10).numpy() * (0.5 if label == "cat" else 1.0)
            imsave(tmp_path / "data" / label / f"{i}.png", pixels, cmap="gray", vmin=0, vmax=1)
    rows = short("--data", str(tmp_path / "data"), "--size", "8", "--epochs", "2")
    assert len(rows) == 2 and 0 <= rows[-1]["accuracy"] <= 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="one folder per class"):
        short("--data", str(tmp_path / "empty"))


def test_two_processes_compute_what_one_does(short, tmp_path):
    """Every sample is drawn and there is no noise: the sums are the same."""
    options = ["--epochs", "2", "--noise", "0", "--batch-size", "100000", "--chunk-size", "512"]
    alone = short(*options)
    launched = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launched += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    launched += ["-m", "tutorials.train_dp_sgd", *options, "--output", str(tmp_path / "two")]
    done = subprocess.run(launched, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    states = [
        torch.load(tmp_path / "two" / f"checkpoint{rank}.pt", weights_only=True) for rank in ("", 1)
    ]
    assert_close(states[0]["network"], states[1]["network"], 1e-6)
    assert_close(
        states[0]["network"], torch.load(tmp_path / "out" / "checkpoint.pt")["network"], 1e-4
    )
    assert states[0]["rows"][-1]["loss"] == pytest.approx(alone[-1]["loss"], rel=1e-4)


def test_epsilon_is_known_with_opacus():
    accountant = Accountant(noise=1.0, rate=0.1, delta=1e-3)
    accountant.steps = 100
    try:
        import opacus  # noqa: F401
    except ImportError:
        assert accountant.epsilon() is None
        return
    assert 1 < accountant.epsilon() < 20
    accountant.steps = 200
    more = accountant.epsilon()
    accountant.noise = 2.0
    assert accountant.epsilon() < more


def test_the_samples_are_drawn_anew_with_one_probability():
    training = train_dp_sgd.Training(train_dp_sgd.parsed(["--batch-size", "300"]))
    numbers = [float(training.step()[2]) for _ in range(4)]
    assert len(set(numbers)) > 1 and 200 < sum(numbers) / 4 < 400
