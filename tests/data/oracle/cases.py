"""The conversations that the oracle holds with every miniature."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Picture:
    """A file under data/images and the most tiles that it may become, thumbnail aside."""

    image: str
    max_num: int


@dataclass(frozen=True, slots=True)
class Case:
    """One `chat()` call. `joined` passes the tiles of all pictures without saying whose they are.

    `only` and `without` name the miniatures that hold it, or do not.
    """

    name: str
    question: str
    pictures: tuple[Picture, ...] = ()
    history: tuple[tuple[str, str], ...] = ()
    joined: bool = False
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """The one `batch_chat()` call: a picture to each question."""

    pictures: tuple[Picture, ...]
    questions: tuple[str, ...]
    only: tuple[str, ...]


WIDE = Picture("480x320.jpg", 1)
SQUARE = Picture("448x448.jpg", 1)
TALL = Picture("320x480.jpg", 2)
PICTURES = (WIDE, TALL, Picture("480x320.jpg", 6))
VARIANTS = ("internlm2-300m-layer", "internlm2-300m-v1", "internlm2-300m-ntk")
RELEASED = (
    "internlm2-300m",
    "internlm2-6b",
    "qwen2-300m",
    "phi3-300m",
    "llama-yi-6b",
    "llama-llama3-6b",
)
CASES = (
    Case("one", "Please describe the image shortly.", (WIDE,)),
    Case(
        "two",
        "Image-1: <image>\nImage-2: <image>\nWhat color is the room?",
        (SQUARE, TALL),
    ),
    Case("text", "Hello!  What is 12 + 24?\n", without=VARIANTS),
    Case(
        "history",
        "请描述这张图片。",
        (WIDE,),
        (("<image>\n这是什么颜色？", "红色，  谢谢。"), ("Is it a room?", "yes")),
        without=VARIANTS,
    ),
    Case("spaces", "  \n<image>  \n\n  What   color?  \n ", (WIDE,), without=VARIANTS),
    Case("joined", "What is in the two pictures?", (SQUARE, WIDE), joined=True, without=VARIANTS),
    Case("empty-answer", "你好！", history=(("hello", ""),), without=VARIANTS),
    # Of a length that the answer passes position 512, where these two change their rotation.
    Case(
        "crossing-phi3",
        "<image>\n" + "Is a fire extinguisher visible? " * 10 + "yes or no?",
        (WIDE,),
        only=("phi3-300m",),
    ),
    Case(
        "crossing-ntk",
        "<image>\n" + "Is a fire extinguisher visible? " * 10 + "yes or no?",
        (WIDE,),
        only=("internlm2-300m-ntk",),
    ),
    # Questions that the model's random weights happen to answer with the stop token.
    Case("stop", "What is 1?", only=("internlm2-300m",)),
    Case("stop", "What is 0?", only=("internlm2-6b",)),
    Case("stop", "What is 287?", only=("qwen2-300m",)),
    Case("stop", "What is 43?", only=("phi3-300m",)),
    Case("stop", "What is 30?", only=("llama-llama3-6b",)),
)
BATCH = Batch(
    (WIDE, SQUARE),
    ("What color is the room?", "请描述这张图片。 Is a fire extinguisher visible?  yes or no?"),
    RELEASED,
)
