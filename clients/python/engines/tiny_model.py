# SPDX-License-Identifier: Apache-2.0
"""A mixture of experts with random weights, as files that an engine loads."""

import json

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

LAYERS, EXPERTS, TOP_K = 3, 16, 2
WORDS, HIDDEN, HEADS, KEY_HEADS, HEAD, INNER = 512, 64, 4, 2, 64, 32


def weights():
    """Of a Qwen3-MoE. Experts differ in how often they are chosen."""
    random = torch.Generator().manual_seed(1)

    def matrix(rows, columns, deviation=None):
        return torch.randn(rows, columns, generator=random) * (deviation or columns**-0.5)

    found = {"model.embed_tokens.weight": matrix(WORDS, HIDDEN, 1.0), "model.norm.weight": torch.ones(HIDDEN),
             "lm_head.weight": matrix(WORDS, HIDDEN, 1.0)}
    for layer in range(LAYERS):
        parts = {
            "input_layernorm": torch.ones(HIDDEN), "post_attention_layernorm": torch.ones(HIDDEN),
            "self_attn.q_proj": matrix(HEADS * HEAD, HIDDEN), "self_attn.q_norm": torch.ones(HEAD),
            "self_attn.k_proj": matrix(KEY_HEADS * HEAD, HIDDEN), "self_attn.k_norm": torch.ones(HEAD),
            "self_attn.v_proj": matrix(KEY_HEADS * HEAD, HIDDEN),
            "self_attn.o_proj": matrix(HIDDEN, HEADS * HEAD),
            "mlp.gate": matrix(EXPERTS, HIDDEN) * torch.linspace(2, 0.5, EXPERTS)[:, None],
        }
        for expert in range(EXPERTS):
            parts[f"mlp.experts.{expert}.gate_proj"] = matrix(INNER, HIDDEN, 0.25)
            parts[f"mlp.experts.{expert}.up_proj"] = matrix(INNER, HIDDEN, 0.25)
            parts[f"mlp.experts.{expert}.down_proj"] = matrix(HIDDEN, INNER, 0.25)
        found |= {f"model.layers.{layer}.{name}.weight": values for name, values in parts.items()}
    return found


def write(folder):
    config = {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "torch_dtype": "float32",
        "vocab_size": WORDS, "hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS, "head_dim": HEAD,
        "num_experts": EXPERTS, "num_experts_per_tok": TOP_K, "moe_intermediate_size": INNER,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "max_position_embeddings": 1024, "tie_word_embeddings": False,
        "hidden_act": "silu", "attention_bias": False, "bos_token_id": 0, "eos_token_id": 1,
    }
    special = {"<s>": 0, "</s>": 1, "<unk>": 2}
    words = Tokenizer(models.WordLevel({**special, **{f"t{i}": i for i in range(3, WORDS)}}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    words.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
             "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights(), folder / "model.safetensors", metadata={"format": "pt"})
