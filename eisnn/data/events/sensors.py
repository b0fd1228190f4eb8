"""Sizes of sensors (height, width) that a format names rather than states."""

_SIZES = {  # by how the name begins; the longer name first
    "dvs128": (128, 128),
    "tmpdiff128": (128, 128),
    "davis128": (128, 128),
    "davis208": (192, 208),
    "davis240": (180, 240),
    "davis346": (260, 346),
    "davis640": (480, 640),
    "gen31": (480, 640),
    "gen3": (480, 640),
    "gen41": (720, 1280),
    "gen4": (720, 1280),
    "imx636": (720, 1280),
    "genx320": (320, 320),
}


def sensor_size(text: str) -> tuple[int, int] | None:
    """Height and width of the sensor that `text` names, wherever in it, or None."""
    text = text.lower()
    return next((size for name, size in _SIZES.items() if name in text), None)
