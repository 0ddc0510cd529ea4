"""Durations as people write them: 90s, 15m, 24h, 30d."""

from typing import Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Duration(click.ParamType[float]):
    """A number with a unit; seconds come out."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds, more than 0 and at most 10 years."""
        text = str(value)
        unit = _UNITS.get(text[-1:])
        try:
            seconds = float(text[:-1]) * unit if unit else float(text)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= 3_650 * _UNITS["d"]:
            self.fail(f"{text!r} is no duration: write 90s, 15m, 24h or 30d.", param, ctx)
        return seconds


DURATION: Final = Duration()
