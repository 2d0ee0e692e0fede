"""What the trainer feeds the model is what the processor of a served model makes of the same example."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

PROGRAM = """
import json
import re
from random import Random
import numpy as np
from qwen_fp8_ops.outside.torchvision_cure import cure_torchvision
cure_torchvision()
import torch
from transformers import AutoProcessor
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeModel
from qwen_fp8_ops.weights.demo.recipe import SHIPPED
from qwen_fp8_ops.weights.demo.training.encoding import Encoder
from qwen_fp8_ops.weights.demo.world import examples

processor = AutoProcessor.from_pretrained(SHIPPED)
encoder = Encoder(processor.tokenizer)
random = Random(77)
faults, kinds = [], set()

def served(example):
    pictures = [picture.image for picture in example.pictures]
    marks = [{"type": "video"}] if example.film else [{"type": "image"} for _ in pictures]
    text = [{"type": "text", "text": example.turns[0].question}]
    messages = [{"role": "user", "content": text + marks if example.text_first else marks + text}]
    for before, turn in zip(example.turns, example.turns[1:]):
        messages += [{"role": "assistant", "content": before.answer}, {"role": "user", "content": turn.question}]
    prompt = processor.apply_chat_template(messages, tools=list(example.tools) or None, tokenize=False, add_generation_prompt=True, enable_thinking=example.thinks)
    media = {}
    if example.film:
        count = len(pictures)
        frames = np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2)
        about = {"fps": 2.0, "total_num_frames": count, "duration": count / 2, "frames_indices": list(range(count))}
        media = {"videos": [frames], "video_metadata": [about], "do_sample_frames": False}
    elif pictures:
        media = {"images": pictures}
    return processor(text=[prompt], return_tensors="pt", **media)

class Config:  # what get_rope_index reads of a model
    from types import SimpleNamespace
    config = SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2))
    get_vision_position_ids = Qwen3VLMoeModel.get_vision_position_ids

for maker, _ in examples.MAKERS:
    for _ in range(12):
        example = maker(random, random.randint(1, examples.MOST_TURNS))
        kinds.add(example.turns[-1].kind)
        ours, theirs = encoder(example), served(example)
        length = int((ours.scored == len(example.turns)).argmax())  # of the prompt: the last answer follows
        if learnt := example.turns[-1].learnt:
            turn = example.turns[-1]
            known = "".join("".join(re.findall(learnt, turn.thought * example.thinks + turn.answer)).split())
            said = "".join(encoder.tokenizer.decode([token]).strip() for token in ours.ids[ours.scored == len(example.turns)])
            if not said or said != known:
                faults.append(["learnt", learnt, said, known])
            continue
        ids = theirs["input_ids"][0].tolist()
        if ids != ours.ids[:length].tolist():
            old_form = example.film and ids.count(ids[ids.index(encoder.video_pad) - 1]) == len(example.pictures) // 2 + 1
            if not old_form:
                faults.append(["ids", example.turns[-1].kind])
            continue
        pixels = theirs.get("pixel_values", theirs.get("pixel_values_videos"))
        if pixels is not None:
            distance = (pixels - (torch.from_numpy(ours.patches).float() / 127.5 - 1)).abs()
            if distance.mean() > 0.01:
                faults.append(["pixels", example.turns[-1].kind, float(distance.mean())])
        positions, _ = Qwen3VLMoeModel.get_rope_index(Config(), theirs["input_ids"], theirs["mm_token_type_ids"], theirs.get("image_grid_thw"), theirs.get("video_grid_thw"))
        if positions[:, 0].tolist() != ours.positions[:, :length].tolist():
            faults.append(["positions", example.turns[-1].kind])
print(json.dumps({"faults": faults, "kinds": sorted(kinds)}))
"""


def test_the_trainer_encodes_as_the_processor_does() -> None:
    if find_spec("transformers") is None or find_spec("torch") is None:
        pytest.skip("needs the cpu extra")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert len(found["kinds"]) >= 12
