from vswin.data.catalog import Catalog
from vswin.data.records import VideoRecord
from vswin.training.summary import describe_run
from vswin.zoo import configured_size


def summarise(config) -> dict[str, str]:
    catalog = Catalog(("jump", "run", "swim"), [VideoRecord("a", 0)] * 130, [VideoRecord("b", 1)] * 9)
    text = describe_run(config, configured_size(config.model), catalog, ["head 1 (decay 0)"], "none", "CPU")
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
