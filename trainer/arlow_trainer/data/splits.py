"""Which files of a folder are its training set, by their names: one rule for media and tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

DEFAULT = "train"
# A word of a name, and the split that it means.
_WORDS = {
    **dict.fromkeys(("train", "training", "trainval", "trn"), DEFAULT),
    **dict.fromkeys(("validation", "valid", "val", "minival"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), "test"),
    "dev": "dev",
    "heldout": "held-out",
    **dict.fromkeys(("unlabeled", "unlabelled", "unsupervised"), "unlabeled"),
}
_HELD_OUT = re.compile(r"h[eo]ld[-_ ]?out")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORD = re.compile(r"[a-z]+")
# What is written at the end of such a word: `trainset`, `testimages`.
_OF_WHAT = re.compile(r"(set|data|images?|imgs?|files|videos?|clips)$")


@dataclass(frozen=True)
class Chosen:
    """Which files of a set a split has; a set may be too large for a list of them."""

    has: Callable[[str], bool]
    split: str | None
    """None where the set has no splits, and all of its files are meant."""
    splits: Mapping[str, int] = field(default_factory=dict)
    """How many files each split has, the most first; empty where there are none."""


class NoSuchSplit(ValueError):
    """A set has other splits than the one asked for, or none; `there_are` names them."""

    def __init__(self, there_are: Sequence[str]) -> None:
        super().__init__(there_are)
        self.there_are = there_are


def choose_split(files: Sequence[str], asked: str, *, tables: bool) -> Chosen:
    """Returns which of the files, whose paths are relative to the set's folder, a split has.

    A folder is a split if its name means one and those of all its siblings with files do, at any
    depth; the outermost counts. Files are splits if the names of all that lie in no such folder
    mean one; those of media must mean different ones. So a class `train` among others is no split.
    Any other split than `train` may also be a folder of just that name.

    Raises NoSuchSplit; not for `train` where there are no splits, then all files are it.
    """
    splits = _Splits(files, tables=tables)
    found = Counter(splits.of(file) for file in files)
    counts: Counter[str] = Counter()
    for split, count in found.items():
        if split:
            counts[split[1]] += count
    by_split = dict(counts.most_common())
    named, meant = asked.lower(), split_in(asked) or asked.lower()
    if any(split and split[0] == named for split in found):
        return Chosen(lambda file: (splits.of(file) or ("",))[0] == named, asked, by_split)
    if any(split and split[1] == meant for split in found):
        return Chosen(lambda file: (splits.of(file) or ("", ""))[1] == meant, asked, by_split)

    def below(file: str) -> bool:
        return f"/{named}/" in f"/{file.lower()}"

    if asked != DEFAULT and any(map(below, files)):
        return Chosen(below, asked, by_split)
    if by_split or asked != DEFAULT:
        raise NoSuchSplit(sorted(by_split))
    return Chosen(lambda file: True, None)


def split_in(name: str) -> str | None:
    """Returns the split that the name of a folder, or of a file without extension, means.

    Exactly one of its words must be that of a split, whatever its case: `train2017`, `Train`,
    `training_images`, `testset`, `cifar10-test`, `ILSVRC2012_img_val`. None for all other names.
    """
    words = _WORD.findall(_HELD_OUT.sub("heldout", _HUMP.sub(" ", name).lower()))
    means = (_WORDS.get(_OF_WHAT.sub("", word)) for word in words)
    found = {split for split in means if split}
    return found.pop() if len(found) == 1 else None


class _Splits:
    def __init__(self, files: Iterable[str], *, tables: bool) -> None:
        self._tables = tables
        # Of every folder: the names of its subfolders, and what those of its files mean, None as
        # soon as one means nothing.
        self._subfolders: dict[str, set[str]] = {"": set()}
        self._means: dict[str, set[str] | None] = {}
        for file in files:
            folder, _, name = file.rpartition("/")
            if folder not in self._means:
                self._enter(folder)
                self._means[folder] = set()
            means = self._means[folder]
            if means is not None:
                meant = split_in(PurePosixPath(name).stem)
                if meant is None:
                    self._means[folder] = None
                else:
                    means.add(meant)
        self._of_folders = {folder: self._of_folder(folder) for folder in self._means}
        loose = [means for f, means in self._means.items() if self._of_folders[f] is None]
        meant_by_files: set[str] = set().union(*(means or () for means in loose))
        self._by_files = None not in loose and (tables or len(meant_by_files) > 1)

    def of(self, file: str) -> tuple[str, str] | None:
        """Returns the name, in lower case, that puts a file into a split, and what it means.

        Of media files, which may be many, only what their own names mean.
        """
        folder, _, name = file.rpartition("/")
        if (split := self._of_folders[folder]) is not None or not self._by_files:
            return split
        stem = PurePosixPath(name).stem
        means = split_in(stem) or ""
        return stem.lower() if self._tables else means, means

    def _enter(self, folder: str) -> None:
        if folder not in self._subfolders:
            above, _, name = folder.rpartition("/")
            self._enter(above)
            self._subfolders[above].add(name)
            self._subfolders[folder] = set()

    def _of_folder(self, folder: str) -> tuple[str, str] | None:
        above = ""
        for name in folder.split("/") if folder else ():
            if all(map(split_in, self._subfolders[above])):
                return name.lower(), split_in(name) or ""
            above = f"{above}/{name}" if above else name
        return None
