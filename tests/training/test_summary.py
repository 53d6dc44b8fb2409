import pytest

from vswin.data.catalog import Catalog
from vswin.data.records import VideoRecord
from vswin.runtime import make_strategy
from vswin.training.summary import describe_run
from vswin.zoo import configured_size


def summarise(config, strategy="one_device") -> dict[str, str]:
    catalog = Catalog(("jump", "run", "swim"), [VideoRecord("a", 0)] * 130, [VideoRecord("b", 1)] * 9)
    groups = ["head 1 (decay 0)"]
    text = describe_run(config, configured_size(config.model), catalog, groups, "none", make_strategy(strategy))
    return {line.split(":")[0]: line.split(":", 1)[1].strip() for line in text.splitlines()}


def test_the_summary_says_what_it_will_cost(compose_train):
    summary = summarise(compose_train("model=swin_tiny", "dataset=ucf101"))
    assert summary["model"] == "swin_tiny, 27.85 M parameters, 87.76 GMACs per clip"
    assert summary["data"] == "ucf101: 3 classes, 130 training videos, 9 validation videos"
    assert summary["classes"] == "jump, run, swim"
    assert summary["clips"] == "32 frames, dense with stride 2, 224 x 224 px"
    assert summary["augmentation"] == "crops of 8 to 100 % of the frame, flipped with probability 0.5"
    assert summary["batch"] == "64 clips (global), 3 steps per epoch, 30 epochs"
    assert summary["learning rates"] == "head 1 (decay 0)"


def test_the_summary_says_what_is_off(compose_train):
    summary = summarise(compose_train("clip=segments32", "optimizer.warmup_epochs=9", "augment.label_smoothing=0.1"))
    assert summary["augmentation"] == "whole frames, not flipped, label smoothing 0.1"
    assert summary["clips"] == "32 frames, segments, 224 x 224 px"
    assert "longer than the run" in summary["schedule"]


def test_the_summary_divides_the_batch_and_its_memory(compose_train):
    whole = summarise(compose_train("model=swin_tiny", "dataset=ucf101", "batch_size=8"))
    assert whole["devices"].startswith("CPU (")
    config = compose_train("model=swin_tiny", "dataset=ucf101", "batch_size=8", "runtime.micro_batches=2")
    parts = summarise(config, "mirrored")
    assert parts["batch"].startswith("8 clips (global), 4 per device in 2 micro-batches, 17 steps per epoch")
    assert parts["devices"].startswith("2 logical CPUs (")
    activations = [float(summary["memory"].split("activations ")[1].split(")")[0]) for summary in (whole, parts)]
    assert activations[0] == pytest.approx(4 * activations[1], rel=1e-2)
    assert summarise(compose_train("runtime.remat=true"))["memory"].endswith(", blocks computed twice")


def test_the_summary_warns_of_more_memory_than_there_is(compose_train):
    memory = summarise(compose_train("model=swin_large", "dataset=ucf101", "batch_size=4096"))["memory"]
    for words in ("that are free", "runtime.micro_batches", "runtime.remat=true"):
        assert words in memory
