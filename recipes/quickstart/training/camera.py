"""The camera: picture sizes, light, blur, noise and JPEG."""

from functools import lru_cache

import cv2
import numpy as np

from recipes.quickstart.training.sprite import Picture

Size = tuple[int, int]
# (width, height): share. The shares keep the mean tile count of the published rule below 9.
SMALL_SIZES: dict[Size, float] = {
    (480, 320): 0.17,
    (320, 480): 0.07,
    (720, 480): 0.09,
    (480, 720): 0.04,
    (640, 360): 0.13,
    (360, 640): 0.06,
    (480, 480): 0.06,
    (448, 448): 0.06,
    (640, 640): 0.12,
    (640, 480): 0.11,
    (480, 640): 0.04,
    (800, 600): 0.05,
}
LARGE_SIZES: dict[Size, float] = {
    (1280, 960): 0.3,
    (960, 1280): 0.1,
    (1280, 720): 0.26,
    (720, 1280): 0.06,
    (1440, 1080): 0.1,
    (1600, 1200): 0.05,
    (1920, 1080): 0.05,
    (1000, 1000): 0.08,
}
LARGE_SHARE = 1 / 3
_NOISE_SIDE = 2048
_NOISE_SPREAD = 32.0


def choose_size(random: np.random.Generator) -> tuple[Size, bool]:
    """A picture size (width, height) and whether it is one of the large ones."""
    large = bool(random.random() < LARGE_SHARE)
    sizes = LARGE_SIZES if large else SMALL_SIZES
    shares = np.array(list(sizes.values()))
    return list(sizes)[int(random.choice(len(sizes), p=shares / shares.sum()))], large


@lru_cache(maxsize=1)
def _noise() -> Picture:
    # One field of noise is drawn once a process and cropped at random: fresh noise for a large
    # picture would cost more than all drawing.
    random = np.random.default_rng(20240717)
    field = random.standard_normal((_NOISE_SIDE, _NOISE_SIDE, 1), np.float32)
    tint = random.standard_normal((_NOISE_SIDE, _NOISE_SIDE, 3), np.float32)
    mixed = 128 + _NOISE_SPREAD * (0.9 * field + 0.4 * tint)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def light(
    picture: Picture, glows: list[tuple[float, float, float]], random: np.random.Generator
) -> None:
    """Light an RGB picture (h, w, 3) in place: gradient, spots, shadows, vignette, colour cast.

    Each glow (x, y, radius in pixels) is a lamp, whose light falls on what is around it.
    """
    height, width = picture.shape[:2]
    rows, columns = 36, max(12, round(36 * width / height))
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    x, y = x / (columns - 1), y / (rows - 1)
    angle = random.uniform(0, 2 * np.pi)
    gain = 1 + random.uniform(0, 0.22) * (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5))
    gain *= random.uniform(0.74, 1.06)
    for _ in range(int(random.integers(0, 4))):
        spot = np.exp(
            -((x - random.random()) ** 2 + (y - random.random()) ** 2)
            / (2 * random.uniform(0.12, 0.35) ** 2)
        )
        gain += random.uniform(-0.16, 0.18) * spot
    if random.random() < 0.5:
        gain -= random.uniform(0.1, 0.5) * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    for glow_x, glow_y, radius in glows:
        distance = ((x * width - glow_x) ** 2 + (y * height - glow_y) ** 2) / radius**2
        gain += 0.3 * np.exp(-distance / 2)
    warmth = random.uniform(-0.06, 0.06)
    cast = np.array([1 + warmth, 1 + random.uniform(-0.02, 0.02), 1 - warmth], np.float32)
    field = np.clip(gain, 0.58, 1.4)[:, :, None] * cast * 128
    full = cv2.resize(field.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.multiply(picture, full, dst=picture, scale=1 / 128)


def expose(picture: Picture, large: bool, random: np.random.Generator) -> bytes:
    """Blur a little, add sensor noise and compress to JPEG bytes (RGB in, quality 60 to 95)."""
    height, width = picture.shape[:2]
    if random.random() < 0.4:
        sigma = random.uniform(0.4, 0.65 if large else 0.85)
        picture = cv2.GaussianBlur(picture, (5, 5), sigma).astype(np.uint8)
    spread = random.uniform(0, 2.2 if large else 5.0)
    if spread > 0.6:
        top = int(random.integers(0, _NOISE_SIDE - height + 1))
        left = int(random.integers(0, _NOISE_SIDE - width + 1))
        grain = _noise()[top : top + height, left : left + width]
        weight = spread / _NOISE_SPREAD
        cv2.addWeighted(picture, 1.0, grain, weight, -128 * weight, dst=picture)
    quality = int(random.integers(60, 83 if large else 96))
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise RuntimeError(
            f"OpenCV could not encode a {width}x{height} picture as JPEG; "
            "install an OpenCV build with JPEG support"
        )
    return bytes(data)
