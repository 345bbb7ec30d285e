"""A folder of videos of one's own."""

from pathlib import Path

import av
import numpy as np
from PIL import Image


def write_videos(folder: Path, grey: bool) -> None:
    """Six videos of 20 frames, two of each kind of file, whose brightness tells the frame."""
    for i in range(6):
        colour = np.array([1.0, 1.0, 1.0] if grey else [1.0, 0.5, 0.0])
        shown = [np.full((24, 30, 3), 10 * f + i) * colour for f in range(20)]
        images = [Image.fromarray(image.astype(np.uint8)) for image in shown]
        if i < 2:
            images[0].save(folder / f"{i}.gif", save_all=True, append_images=images[1:])
        elif i < 4:
            with av.open(folder / f"{i}.mp4", "w") as film:
                stream = film.add_stream("h264", rate=10)
                stream.width, stream.height, stream.pix_fmt = 30, 24, "yuv420p"
                for image in images:
                    film.mux(stream.encode(av.VideoFrame.from_image(image)))
                film.mux(stream.encode())
        else:
            (folder / str(i)).mkdir()
            for frame, image in enumerate(images):
                image.save(folder / str(i) / f"{frame}.png")
