"""Options of optimisers and schedules: looked at whenever one is set, at the start or later."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from tinyseq import arguments
from tinyseq.arguments import Within

MOST = 1 << 53  # of steps that can be counted: a float holds it, and nobody gets there
Steps = Annotated[int, Within(lambda n: 0 <= n <= MOST, f"at least 0 and at most {MOST}")]


class Options:
    """Attributes held to their annotations. A value that breaks one, or that contradicts another
    option, is refused, and the old one stays.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        value = arguments.assigned(self, name, value)
        before = vars(self).get(name, self)  # itself: there was none
        super().__setattr__(name, value)
        try:
            self._agree()
        except ValueError:
            del vars(self)[name]
            if before is not self:
                vars(self)[name] = before
            raise

    def _agree(self) -> None:
        """Raise `ValueError` where options contradict each other; some may not be set yet."""

    def _wrong(self, name: str, value: np.ndarray) -> str | None:
        """What is wrong with a value that a state has for an option."""
        try:
            arguments.assigned(self, name, value.item())
        except (TypeError, ValueError) as error:
            return str(error)
        return None
