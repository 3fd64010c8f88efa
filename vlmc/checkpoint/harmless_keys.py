"""Keys of a config.json that change nothing at inference, as transformers 4 and 5 write them."""

from __future__ import annotations

# What a model is called and how it is loaded.
_IDENTITY = """
architectures attn_implementation auto_map dtype id2label keys_to_ignore_at_inference label2id
model_type num_labels problem_type return_dict tokenizer_class torch_dtype torchscript
transformers_version use_bfloat16 use_cache use_flash_attn use_return_dict
"""
_TRAINING = """
attention_dropout chunk_size_feed_forward drop_path_rate dropout embd_pdrop hidden_dropout
initializer_factor initializer_range pretraining_tp resid_pdrop
"""
# vlmc has its own rules of generation.
_GENERATION = """
begin_suppress_tokens bos_token_id decoder_start_token_id diversity_penalty do_sample
early_stopping encoder_no_repeat_ngram_size eos_token_id length_penalty max_length max_new_tokens
min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
output_hidden_states output_scores pad_token_id repetition_penalty return_dict_in_generate
sep_token_id temperature top_k top_p typical_p
"""
# Of InternVL's later towers, whose mixture of experts `use_moe` switches; it must be off.
_EXPERTS = """
capacity_factor ep_size eval_capacity_factor laux_allreduce moe_coeff_ratio moe_intermediate_size
moe_output_scale noisy_gate_policy num_experts num_routed_experts num_shared_experts
shared_expert_intermediate_size use_residual use_rts use_weighted_residual
"""
# Copies of the language model's sizes, which some trainers put at the top for other tools.
_COPIES = "hidden_size num_hidden_layers vocab_size"

_COMMON = frozenset((_IDENTITY + _TRAINING + _GENERATION).split())
TOP = _COMMON | {"quantization_config", "tie_word_embeddings", *_COPIES.split()}
VISION = _COMMON | set(_EXPERTS.split())
LANGUAGE = _COMMON | {"max_window_layers", "quantization_config"}
