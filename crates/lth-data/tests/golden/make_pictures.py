"""Small picture files of every kind the decoder must handle, and what Pillow's convert("RGB") makes of them.

Writes pictures/* and pictures.safetensors (file name -> u8 [height, width, 3]). Deterministic.
Made with Pillow 13.0.0 (libjpeg-turbo 3.2.0), numpy 2.4.6, safetensors 0.8.0:  python make_pictures.py
"""

import io
import struct

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

W, H = 29, 21
y, x = np.mgrid[0:H, 0:W]
rgb = np.stack([x * 8, y * 12, (x * 3 + y * 5) % 256], -1).astype(np.uint8)
alpha = (255 - x * 7).astype(np.uint8)[..., None]
photo = Image.fromarray(rgb)
files = {}


def add(name, image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    files[name] = out.getvalue()


add("rgb.png", photo, "PNG")
add("alpha.png", Image.fromarray(np.concatenate([rgb, alpha], -1)), "PNG")
add("grey.png", photo.convert("L"), "PNG")
add("grey_alpha.png", Image.fromarray(np.concatenate([rgb, alpha], -1)).convert("LA"), "PNG")
add("one_bit.png", photo.convert("1"), "PNG")
add("palette.png", photo.quantize(16), "PNG")
add("palette_transparent.png", photo.quantize(16), "PNG", transparency=3)
add("two_frames.gif", photo.quantize(64), "GIF", save_all=True, append_images=[photo.quantize(64).rotate(180)])
add("transparent.gif", photo.quantize(32), "GIF", transparency=2)
add("plain.bmp", photo, "BMP")
add("lossless.webp", photo, "WEBP", lossless=True)

add("plain.jpg", photo, "JPEG", quality=95, subsampling=0)
add("subsampled.jpg", photo, "JPEG", quality=90, subsampling=2)
add("progressive.jpg", photo, "JPEG", quality=95, subsampling=0, progressive=True)
add("grey.jpg", photo.convert("L"), "JPEG", quality=95)
# Pillow writes CMYK inverted with an Adobe marker, as Photoshop does.
cmyk = np.concatenate([255 - rgb, (y * 4).astype(np.uint8)[..., None]], -1)
add("cmyk.jpg", Image.fromarray(cmyk, "CMYK"), "JPEG", quality=95)
exif = Image.Exif()
exif[0x0112] = 6  # "rotate by a quarter": to be ignored
add("rotated_by_exif.jpg", photo, "JPEG", quality=95, subsampling=0, exif=exif)
# A segment that holds an end-of-image marker, as EXIF thumbnails do.
plain = files["plain.jpg"]
thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(plain)) + plain
files["thumbnail.jpg"] = plain[:2] + thumbnail + plain[2:]
files["junk_after.jpg"] = plain + bytes(range(240))
files["junk_before_end.jpg"] = plain[:-2] + bytes(range(200)) + plain[-2:]

expected = {}
for name, data in sorted(files.items()):
    with open(f"pictures/{name}", "wb") as out:
        out.write(data)
    expected[name] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
save_file(expected, "pictures.safetensors")
