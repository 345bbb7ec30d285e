"""Picture files, as bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from lightning_ddpm.files import DataError

GREY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError)
ORIENTATION = 0x0112  # in EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Head(NamedTuple):
    """What a picture file says of itself: Pillow's mode, width and height upright, and pages."""

    mode: str
    size: tuple[int, int]
    pages: int


@contextmanager
def of_any_size() -> Iterator[None]:
    """Within, pictures are read that Pillow takes for too large."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture file.

    Raises:
        DataError: if it is none, is too large, or is not of 8 bits, grey or colour.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in (*GREY, *COLOUR):
                raise DataError(
                    f"{path} is of mode {image.mode}, not of 8 bits, grey or RGB: save it so"
                )
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large: --image_size scales it") from error
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as an image") from error


def orientation_of(image: Image.Image) -> int:
    """How a picture lies, as EXIF counts: upright, 1, if it does not say so or cannot be read.

    Of a PNG it must stand in front: the rest would be decoded to look for it.
    """
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # what is damaged fails in any way
        return 1
    return found if isinstance(found, int) and found in TURNS else 1


def read_head(path: Path) -> Head:
    """The head of a picture file. Raises DataError if it cannot be read."""
    with opened(path) as image:
        width, height = image.size
        size = (height, width) if orientation_of(image) > 4 else (width, height)  # on its side
        return Head(image.mode, size, getattr(image, "n_frames", 1))


def read_picture(path: Path) -> Image.Image:
    """The first page of a picture file, upright, grey or RGB; what is transparent becomes white.

    Raises:
        DataError: if it cannot be read.
    """
    with opened(path) as image:
        turn, grey = TURNS.get(orientation_of(image)), image.mode in GREY
        upright = image.copy() if turn is None else image.transpose(turn)
    if upright.has_transparency_data:
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright.convert("RGBA"))
    return upright.convert("L" if grey else "RGB")


def pixels(image: Image.Image, channels: int) -> UInt8[Tensor, "c h w"]:
    """A picture as an array of one channel or three."""
    return pil_to_tensor(image.convert("L" if channels == 1 else "RGB"))
