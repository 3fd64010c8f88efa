"""The text that the miniature tokenizers are trained on."""

from __future__ import annotations

SYSTEM_MESSAGE = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
    "是一个有用无害的人工智能助手。"
)
CORPUS = (
    SYSTEM_MESSAGE,
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
    "多模态大语言模型。",
    "请描述这张图片。图中有什么？这是什么颜色？请回答是或否。你好！谢谢。",
    "Please describe the image shortly. What color is the room? Is a fire extinguisher visible?",
    "Answer yes or no. There are two pictures; the first shows a red square, the second a circle.",
    "Image-1: Image-2: Frame1: Frame2: system user assistant",
    "The user asks the assistant a question, and the assistant gives a helpful answer.",
    "the quick brown fox jumps over the lazy dog; THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
    "0 1 2 3 4 5 6 7 8 9 10 12 24 100 480 640 1000 2024 3.14 1,000",
    "! \" # $ % & ' ( ) * + , - . / : ; < = > ? @ [ \\ ] ^ _ ` { | } ~",
    "def tile(image):\n    return image.resize((448, 448))\n\n    # four  spaces   and    more\n",
    "it's I'm you're we'll they've he'd don't",
)
