"""What `transformers` computes with small networks of random weights, for the test that loads them under timm's names

Run beside the project, where `transformers` is installed: python make_encoders.py. Writes encoders.npz: for each
network the tensors as `save_pretrained` writes them, an image, and the tokens after the last norm."""
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTModel,
)

sizes = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, image_size=14, patch_size=7)
networks = dict(
    dinov2=lambda: Dinov2Model(Dinov2Config(**sizes)),
    swiglu=lambda: Dinov2Model(Dinov2Config(**sizes, use_swiglu_ffn=True)),
    registers=lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes, use_swiglu_ffn=True,
                                                                         num_register_tokens=4)),
    vit=lambda: ViTModel(ViTConfig(**sizes, intermediate_size=48), add_pooling_layer=False),
)
arrays = {}
for name, make in networks.items():
    torch.manual_seed(0)
    net = make().eval()
    with torch.no_grad():
        for p in net.parameters(): p.copy_(torch.randn_like(p)*.2)
        x = torch.randn(2, 3, 14, 14)
        y = net(x).last_hidden_state
    with tempfile.TemporaryDirectory() as d:
        net.save_pretrained(d)
        state = load_file(Path(d)/'model.safetensors')
    arrays |= {f'{name}/x': x.numpy(), f'{name}/y': y.numpy()}
    arrays |= {f'{name}/state/{k}': v.numpy() for k, v in state.items()}
np.savez_compressed(Path(__file__).with_name('encoders.npz'), **arrays)
