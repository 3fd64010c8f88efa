"""Pages of the KV cache by who holds them, the unheld ones with a prompt's keys kept for reuse."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class PagePool:
    """Hands out pages and counts their holders.

    A page that is full and keyed stays findable when its last holder lets it go, until the page is
    needed: the one that was let go first goes first. Pages of a sequence are let go from its last
    to its first, so that what many prompts share goes last.
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._free = list(range(pages - 1, -1, -1))
        self._holders = [0] * pages
        self._key_of: dict[int, bytes] = {}
        self._page_of: dict[bytes, int] = {}
        self._unheld: OrderedDict[int, None] = OrderedDict()  # keyed pages without a holder

    @property
    def available(self) -> int:
        """Pages that `take` can give, those kept for reuse included."""
        return len(self._free) + len(self._unheld)

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """The pages of the first keys that are all there; not yet held."""
        found = []
        for key in keys:
            page = self._page_of.get(key)
            if page is None:
                break
            found.append(page)
        return found

    def hold(self, pages: Sequence[int]) -> None:
        """Become a holder of pages that `find` gave or that another holder shares."""
        for page in pages:
            self._holders[page] += 1
            self._unheld.pop(page, None)

    def take(self, count: int) -> list[int]:
        """Take `count` pages for writing. Ask `available` first.

        Raises:
            ValueError: there are fewer.
        """
        if count > self.available:
            raise ValueError(f"{count} pages were requested, but {self.available} are left")
        taken = []
        for _ in range(count):
            if self._free:
                page = self._free.pop()
            else:
                page, _ = self._unheld.popitem(last=False)
                del self._page_of[self._key_of.pop(page)]
            self._holders[page] = 1
            taken.append(page)
        return taken

    def publish(self, page: int, key: bytes) -> None:
        """Make a full page findable; a second page of the same content stays private."""
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key], self._key_of[page] = page, key

    def forget(self, keys: Sequence[bytes]) -> None:
        """Make pages unfindable, so that nobody else reuses them; holders keep them."""
        for key in keys:
            page = self._page_of.pop(key, None)
            if page is None:
                continue
            del self._key_of[page]
            if page in self._unheld:
                del self._unheld[page]
                self._free.append(page)

    def release(self, pages: Sequence[int]) -> None:
        """Let pages go, the last of the sequence first."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0:
                if page in self._key_of:
                    self._unheld[page] = None
                else:
                    self._free.append(page)
