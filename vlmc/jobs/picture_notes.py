"""The number of pictures of a job whose rotation or bit depth was not used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from vlmc.image.decode import ImageNote
from vlmc.jobs.input.rows import InputRow


class PictureNotes:
    """Counts pictures by note, each once however many questions are on it."""

    def __init__(self) -> None:
        # Hashes, since a job may have millions of pictures.
        self._seen: set[int] = set()
        self._counts: Counter[ImageNote] = Counter()

    def add(self, row: InputRow, notes: Sequence[Collection[ImageNote]]) -> None:
        """Count the notes of a row's images, in their order."""
        images = row.image if isinstance(row.image, list) else [row.image]
        for place, (image, found) in enumerate(zip(images, notes, strict=False)):
            for note in found:
                picture = image if isinstance(image, Path) else (row.number, place)
                key = hash((note, picture))
                self._counts[note] += key not in self._seen
                self._seen.add(key)

    def __getitem__(self, note: ImageNote) -> int:
        return self._counts[note]
