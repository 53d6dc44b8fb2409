"""`vswin data check`: looks at every file of a data set before a training run stumbles over it."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from vswin.console import Console
from vswin.data.catalog import Catalog, describe_catalog, find_videos
from vswin.data.check_files import FileFacts, hash_file, in_parallel, inspect_file, same_sized
from vswin.data.check_findings import FAILURES, find_problems, subsets_of
from vswin.data.check_report import print_findings, print_summary, write_clean_lists, write_report
from vswin.data.frames import open_store
from vswin.data.opencv_decoder import check_opencv
from vswin.data.packed import is_packed
from vswin.errors import InputError
from vswin.schema import DataCheckConfig
from vswin.tables import make_progress_bar, say
from vswin.wording import printable

_SECONDS_BETWEEN_LINES = 10

ItemT = TypeVar("ItemT")


def run_check(config: DataCheckConfig) -> None:
    """Looks at the files in parallel and reports what is wrong.

    Args:
        config: of the command.

    Raises:
        InputError: if the data set cannot be found at all, or nothing of it is there.
        SystemExit: with code 1, if videos are missing or broken.
        KeyboardInterrupt: after Ctrl-C, when what was found so far has been reported.
    """
    console = Console(soft_wrap=True)
    check_opencv()
    dataset = replace(config.dataset, allow_missing=True)
    if dataset.source == "tfds":
        raise InputError("dataset.source=tfds: there are no files to check; set dataset.source=videos")
    if is_packed(Path(dataset.root)):
        raise InputError(f"{dataset.root} is packed: its videos were compared with their files when it was written")
    catalog = find_videos(dataset)
    for line in (f"{dataset.name} in {dataset.root}: {describe_catalog(catalog)}", *catalog.notes):
        say(console, line)

    facts: dict[str, FileFacts] = {}
    hashes: dict[str, str] = {}
    is_interrupted = False
    try:
        _look(console, catalog, config, facts, hashes)
    except KeyboardInterrupt:
        is_interrupted = True
        num_files = len(_paths(catalog))
        console.print(f"[bold]interrupted: {len(facts):,} of {num_files:,} files were looked at[/bold]")

    findings = find_problems(catalog, facts, hashes, config.clip)
    print_summary(console, dataset, catalog, facts)
    print_findings(console, findings, dataset.root)
    if config.report is not None:
        write_report(Path(config.report), findings)
        console.print(printable(f"report: {config.report}"), markup=False, soft_wrap=True)
    if is_interrupted:
        raise KeyboardInterrupt
    if config.clean_lists is not None:
        _write_lists(console, config, catalog, facts)
    if any(finding.kind in FAILURES for finding in findings):
        raise SystemExit(1)


def _look(
    console: Console,
    catalog: Catalog,
    config: DataCheckConfig,
    facts: dict[str, FileFacts],
    hashes: dict[str, str],
) -> None:
    """Fills in what is found, so that it is there when this is interrupted."""
    dataset = config.dataset
    inspect = partial(
        inspect_file,
        decoder=dataset.decoder,
        timeout_sec=dataset.clip_timeout_sec,
        decode=config.decode,
        store=open_store(dataset),
    )
    paths = _paths(catalog)

    def count_broken() -> str:
        num_broken = sum(bool(fact.reason) for fact in facts.values())
        return f"{num_broken:,} broken"

    verb = "decoding" if config.decode else "opening"
    for path, fact in _show(console, verb, in_parallel(inspect, paths), len(paths), count_broken):
        facts[path] = fact
    candidates = same_sized(facts)
    for path, digest in _show(console, "comparing", in_parallel(hash_file, candidates), len(candidates), str):
        hashes[path] = digest


def _paths(catalog: Catalog) -> list[str]:
    """Lists the files, each once."""
    return list(dict.fromkeys(video.path for videos in subsets_of(catalog).values() for video in videos))


def _show(
    console: Console, verb: str, results: Iterable[ItemT], num_files: int, make_note: Callable[[], str]
) -> Iterator[ItemT]:
    """Shows a bar while results come in; where there is no terminal, a line every ten seconds."""
    with make_progress_bar(console, "files") as bar:
        task = bar.add_task(verb, total=num_files, note="")
        last = time.monotonic()
        for done, result in enumerate(results, start=1):
            yield result
            bar.advance(task)
            if time.monotonic() - last > (1 if console.is_terminal else _SECONDS_BETWEEN_LINES):
                last = time.monotonic()
                bar.update(task, note=make_note())
                if not console.is_terminal:
                    console.print(f"{verb}: {done:,} of {num_files:,} files  {make_note()}", soft_wrap=True)


def _write_lists(console: Console, config: DataCheckConfig, catalog: Catalog, facts: dict[str, FileFacts]) -> None:
    assert config.clean_lists is not None
    written = write_clean_lists(Path(config.clean_lists), catalog, facts, config.dataset.root)
    keys = " ".join(f"dataset.{path.stem}_list={path}" for path in written)
    console.print(printable(f"clean lists: {keys}"), markup=False, soft_wrap=True)
