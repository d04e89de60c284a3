"""A duration in words."""


def duration(seconds: float) -> str:
    """Such as `40 s`, `12 min`, or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
