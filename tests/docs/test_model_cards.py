"""The model cards: one for each published model, with the figures of the tables and recipes."""

import re
from pathlib import Path

import pytest

from vswin.config.compose import compose_config, compose_evaluation
from vswin.config.schema import TrainConfig
from vswin.data.class_names import official_counts
from vswin.models.zoo import SIZES, configured_size, count_macs
from vswin.weights.published import PublishedModel, published_models

CARDS = Path(__file__).parents[2] / "docs" / "models"
MODELS = published_models()
# The headings of Hugging Face's model cards that apply here.
HEADINGS = [
    "## Model Details",
    "### License",
    "## Uses",
    "### Direct Use",
    "### Downstream Use",
    "### Out-of-Scope Use",
    "## Bias, Risks, and Limitations",
    "## How to Get Started with the Model",
    "## Training Details",
    "## Evaluation",
    "## Citation",
]
# Numbers in names that all cards may contain.
NAMES = (
    r"mmaction2|top-[15]|Something v2|Kinetics-\d+|ImageNet-\d+K|TF-Hub|arXiv:\S+|CVPR \d+|CC BY 4\.0|Apache-2\.0"
    r"|uint8|RGB"
)


def read_card(model: PublishedModel) -> str:
    return (CARDS / f"{model.name}.md").read_text()


def gmacs(model: PublishedModel) -> str:
    return f"{count_macs(SIZES[model.size], 32, 224, 224) / 1e9:.1f}"


def recipe(text: str) -> TrainConfig:
    """Composes the one recipe that a card names."""
    (experiment,) = re.findall(r"python train\.py (experiment=\w+)", text)
    return compose_config("train", [experiment], TrainConfig)


def known_figures(model: PublishedModel, config: TrainConfig) -> set[str]:
    """Lists every number that the text of a card may contain."""
    size, counts = SIZES[model.size], official_counts(model.dataset)
    assert counts is not None
    accuracies = [model.top1, model.top5, model.hub_page.top1, model.hub_page.top5]
    accuracies += [value for source in model.sources for value in (source.top1, source.top5) if value is not None]
    training = (config.epochs, config.batch_size, config.optimizer.learning_rate, config.optimizer.weight_decay)
    training += (config.optimizer.backbone_multiplier, config.optimizer.warmup_epochs, config.augment.erasing)
    training += (config.augment.label_smoothing, configured_size(config.model).drop_path_rate)
    clip = (config.clip.num_frames, config.clip.crop, config.clip.num_clips, config.clip.num_crops, *size.window_size)
    torchvision = ("12", "15") if "torchvision's own protocol: 12 views at 15 fps" in str(model.sources) else ()
    return {
        *(str(accuracy) for accuracy in accuracies),
        *re.findall(r"\d+\.\d+", model.hub_page.why),
        *(f"{number:g}" for number in (*training, *clip)),
        *(f"{number:,}" for number in (model.parameters, model.num_classes, *counts.values())),
        *(gmacs(model), f"{100 - model.top1:.1f}", *torchvision),
    }


def test_every_published_model_has_a_card_and_a_row_in_the_index():
    names = [model.name for model in MODELS]
    assert sorted(path.stem for path in CARDS.glob("*.md")) == sorted([*names, "README"])
    rows = [
        f"| [{model.name}]({model.name}.md) | {read_card(model).split(' classes of ')[1].split(' apart')[0]} "
        f"| {model.parameters / 1e6:.1f} M | {gmacs(model)} | {model.test_views} | {model.top1} / {model.top5} |"
        for model in MODELS
    ]
    index = (CARDS / "README.md").read_text()
    assert [line for line in index.splitlines() if line.startswith("| [")] == rows


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_card_has_its_headings_and_no_figure_from_elsewhere(model):
    text = read_card(model)
    assert [line for line in text.splitlines() if line.startswith(("## ", "### "))] == HEADINGS
    assert text.startswith(f"# {model.name}\n")
    prose = re.sub(
        rf"```.*?```|^    .*?$|`[^`]*`|\]\([^)]*\)|^# .*?$|{NAMES}", "", text, flags=re.DOTALL | re.MULTILINE
    )
    figures = set(re.findall(r"\d[\d,]*(?:\.\d+)?", prose.replace(", ", " ")))
    assert figures - known_figures(model, recipe(text)) == set()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_figures_of_a_card_stand_where_they_belong(model):
    text, counts = read_card(model), official_counts(model.dataset)
    assert f"| Parameters | {model.parameters:,} |" in text
    assert f"| Multiply-adds | {gmacs(model)} G for the backbone on one clip of 32 x 224 x 224 |" in text
    assert f"| Output | {model.num_classes} logits, in the order of `data/{model.dataset}/classes.txt` |" in text
    assert f"| published | {model.top1} | {model.top5} |" in text
    assert f"{counts['train']:,} training videos" in text
    assert f"{counts['val']:,} as published" in text
    copies = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", text, re.MULTILINE)
    owners = [(s.name, "" if s.top1 is None else f"{s.top1} / {s.top5}") for s in model.sources]
    assert [(name, accuracy.strip()) for name, _, accuracy in copies] == owners
    assert all(source.note in what for source, (_, what, _) in zip(model.sources, copies, strict=True))
    assert all("without the head" in what for name, what, _ in copies if name == "tfhub")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_protocol_and_the_recipe_of_a_card_are_those_of_the_configuration(model):
    text = " ".join(read_card(model).split())
    clip = compose_evaluation([], init_from=model.name).clip
    assert (f"{clip.num_clips}x{clip.num_crops}", clip.resize) == (model.test_views, 224)
    sampling = {
        "dense": "32 frames, every second one",
        "segments": "one frame from each of 32 equal parts of the video",
    }[clip.sampling]
    clips = "clip" if clip.num_clips == 1 else "clips"
    assert f"**Protocol**: {clip.num_clips} {clips} x {clip.num_crops} crops, {sampling}, short side 224 px" in text
    config = recipe(read_card(model))
    assert (config.model.name, config.dataset.name) == (model.size, model.dataset)
    assert f"`{config.init_from}`" in text
    optimizer = config.optimizer
    assert (
        f"{config.epochs} epochs of batches of {config.batch_size} clips, AdamW with learning rate "
        f"{optimizer.learning_rate:g} ({optimizer.backbone_multiplier:g} of it for the backbone) and weight decay "
        f"{optimizer.weight_decay:g}, cosine after {optimizer.warmup_epochs:g} epochs of warm-up, drop path "
        f"{configured_size(config.model).drop_path_rate:g}"
    ) in text


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_commands_of_a_card_are_for_its_model(model):
    text = read_card(model)
    assert f"    vswin predict jump.mp4 --model {model.name}\n" in text
    assert f"    python evaluate.py init_from={model.name} dataset.root=/data/{model.dataset}\n" in text
    build = f'vswin.build_model("{model.size}", num_classes={model.num_classes}, weights="{model.name}")'
    assert build in text
    (fine_tune,) = re.findall(r"    python train\.py (.* dataset=folder .*)\n", text)
    assert compose_config("train", fine_tune.split(), TrainConfig).init_from == model.name
