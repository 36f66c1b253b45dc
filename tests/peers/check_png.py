"""check_png.py FILE: prints, as PIL reads it, the mode, the size and the pixels in hexadecimal."""
import sys
from PIL import Image

image = Image.open(sys.argv[1])
image.load()
print(image.mode, *image.size, image.tobytes().hex())
