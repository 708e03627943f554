"""What the configurations of other projects may hold beside the formula, and what is done with any other key of them.

The keys of each project are those that its public code writes, training settings among them. Any other is said once
(`understood`); one whose name suggests another formula, and that is not switched off, is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gazetteer.data.core.errors import InputError

log = logging.getLogger(__name__)

Keys = Mapping[str, frozenset[str]]
"""Known keys of a configuration's object, by its dotted place in it: empty for the outermost."""

OURS = frozenset({"signal", "stream", "block"})
"""What any configuration may say of its input (`gazetteer.sae.formats.format.described`)."""

_FORMULA = re.compile(
    r"(pre|post|un)?(norm|scal|whiten|cent(er|re)|bias|shift|offset|clamp|temper|gat(ed?|ing)$|transform$|rotat|"
    r"standardi|skip|lookup)"
)
_FUNCTIONS = {"activation", "activation_fn", "activation_function", "nonlinearity"}
_INPUT = {"input", "act", "acts", "activation", "activations", "data"}
_STATISTICS = {"mean", "std"}
_TRAINING = {
    "lr", "loss", "grad", "grads", "gradient", "optimizer", "adam", "dead", "aux", "auxk", "wandb", "penalty", "l0",
    "l1", "lp", "init", "initial", "initialization", "sparsity", "warmup", "decay", "resample", "train", "training",
    "dataset", "eval", "metric", "metrics", "mse", "explained",
}  # fmt: skip
"""Words of a key that is of the training or of what was measured, whatever else it is called."""


def understood(stated: Any, known: Keys, file: Path, layout: str) -> None:
    """Warn of keys in a configuration that nothing is known of, once for a file in a process.

    Args:
        stated: the configuration.
        known: of its layout; objects that are not named there may hold anything.

    Raises:
        InputError: one of them suggests by its name that the formula is another one.
    """
    unknown = dict(_unknown(stated, known))
    other = sorted(key for key in unknown if _of_formula(key.rpartition(".")[2]))
    if other:
        raise InputError(
            f"{file} sets {', '.join(other)}, which is not known of {layout} and by its name changes what is computed; "
            "its codes would be others than its own project's, so it is not read. Where it changed the training alone, "
            "take it out of a copy of the file."
        )
    if unknown:
        _warn(str(file), layout, ", ".join(sorted(unknown)))


def _unknown(stated: Any, known: Keys) -> Iterator[tuple[str, Any]]:
    """The keys that are not known and not switched off, by their dotted places."""
    for place, names in known.items():
        inside = stated
        for name in filter(None, place.split(".")):
            inside = inside.get(name) if isinstance(inside, dict) else None
        for key, value in inside.items() if isinstance(inside, dict) else ():
            if key not in names | (OURS if not place else frozenset()) and not _off(value):
                yield f"{place}.{key}".strip("."), value


def _off(value: Any) -> bool:
    """Whether a value switches a part of a formula off, as far as a value can say that."""
    return value is None or value is False or value in ("", "none", "None", [], {})


def _of_formula(key: str) -> bool:
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower())
    if _TRAINING.intersection(words):
        return False
    measured = bool(_STATISTICS.intersection(words) and _INPUT.intersection(words))
    return key in _FUNCTIONS or measured or any(_FORMULA.match(word) for word in words)


@cache
def _warn(file: str, layout: str, keys: str) -> None:
    log.warning("%s: %s is not known of %s and was left out; codes are as without it.", file, keys, layout)


def _keys(text: str) -> frozenset[str]:
    return frozenset(text.split())


UNBOX: Keys = {"": _keys("n_dirs_local d_model k auxk dead_steps_threshold")}

SPARSIFY: Keys = {
    "": _keys(
        "activation expansion_factor normalize_decoder num_latents k multi_topk skip_connection transcode d_in signed "
        "lookup_max_order gram_table_hash batch_topk sample_topk input_unit_norm"
    )
}
"""Of sparsify, SAeUron and SAEmnesia; what is subtracted by n-grams or from embeddings is not among them."""

SAE_LENS: Keys = {
    "": _keys(
        # what the formula is
        "architecture d_in d_sae d_out k dtype device apply_b_dec_to_input normalize_activations reshape_activations "
        "rescale_acts_by_decoder_norm activation_fn activation_fn_str activation_fn_kwargs finetuning_scaling_factor "
        "metadata expansion_factor "
        # where and on what it was trained
        "model_name model_class_name model_kwargs model_from_pretrained_kwargs hook_name hook_layer hook_head_index "
        "hook_eval hook_name_out hook_layer_out hook_head_index_out hf_hook_name hf_hook_name_out hook_point "
        "hook_point_layer hook_point_head_index context_size prepend_bos exclude_special_tokens seqpos_slice "
        "dataset_path dataset_trust_remote_code streaming is_dataset_tokenized use_chat_formatting "
        "use_cached_activations cached_activations_path from_pretrained_path neuronpedia_id neuronpedia "
        "sae_lens_version sae_lens_training_version run_name seed verbose "
        # how
        "b_dec_init_method normalize_sae_decoder noise_scale decoder_orthogonal_init decoder_heuristic_init "
        "decoder_heuristic_init_norm decoder_init_norm init_encoder_as_decoder_transpose n_batches_in_buffer "
        "n_batches_for_norm_estimate training_tokens finetuning_tokens finetuning_method store_batch_size "
        "store_batch_size_prompts train_batch_size train_batch_size_tokens total_training_tokens tokens_per_buffer "
        "act_store_device autocast autocast_lm compile_llm compile_sae llm_compilation_mode sae_compilation_mode "
        "adam_beta1 adam_beta2 mse_loss_normalization l1_coefficient l0_coefficient lp_norm l1_warm_up_steps "
        "l0_warm_up_steps scale_sparsity_penalty_by_decoder_norm lr lr_scheduler_name lr_warm_up_steps lr_end "
        "lr_decay_steps n_restart_cycles use_ghost_grads feature_sampling_window feature_sampling_method "
        "feature_reinit_scale dead_feature_window dead_feature_threshold dead_feature_estimation_method "
        "resample_batches "
        "jumprelu_init_threshold jumprelu_bandwidth jumprelu_sparsity_loss_mode jumprelu_tanh_scale "
        "pre_act_loss_coefficient use_sparse_activations aux_loss_coefficient topk_threshold_lr matryoshka_widths "
        "use_matryoshka_aux_loss n_eval_batches eval_batch_size_prompts log_to_wandb log_activations_store_to_wandb "
        "log_optimizer_state_to_wandb wandb_project wandb_id wandb_entity wandb_log_frequency eval_every_n_wandb_logs "
        "resume n_checkpoints checkpoint_path"
    )
}

DICTIONARY_LEARNING: Keys = {
    "": _keys("trainer buffer"),
    "trainer": _keys(
        "dict_class trainer_class activation_dim dict_size k lr steps seed device layer lm_name wandb_name "
        "submodule_name auxk_alpha top_k_aux warmup_steps decay_start resample_steps sparsity_warmup_steps l1_penalty "
        "l0_penalty sparsity_penalty sparsity_function p_start p_end anneal_start anneal_end sparsity_queue_length "
        "n_sparsity_updates bandwidth target_l0 threshold_beta threshold_start_step group_fractions group_weights "
        "group_sizes norm_factor"
    ),
}
"""Its trainings divide activations by a ``norm_factor`` and fold it into the weights that they save."""

_OF_SAEV = _keys(
    "d_model d_vit d_sae exp_factor activation top_k seed n_reinit_samples reinit_blend reinit_enc_dec_tranpose "
    "reinit_enc_dec_transpose remove_parallel_grads normalize_w_dec sparsity_coeff ghost_grads l1_coeff use_ghost_grads"
)
SAEV: Keys = {
    "": _keys("schema cls cfg commit lib") | _OF_SAEV,  # files without a schema have these alone
    "cfg": _OF_SAEV,
    "cfg.activation": _keys("cls params"),
    "cfg.activation.params": _keys("key top_k sparsity aux momentum"),
}

PRISMA: Keys = {
    "": _keys(
        "architecture activation_fn_str activation_fn_kwargs d_in d_sae expansion_factor normalize_activations "
        "is_transcoder transcoder_with_skip_connection out_hook_point_layer layer_out_subtype d_out dtype device seed "
        "model_class_name model_name vit_model_cfg model_path hook_point hook_point_layer hook_point_head_index "
        "layer_subtype context_size use_cached_activations use_patches_only cached_activations_path cls_token_only "
        "min_l0 min_explained_variance max_grad_norm initialization_method n_batches_in_buffer store_batch_size "
        "num_workers num_epochs total_training_images total_training_tokens total_training_steps image_size "
        "tokens_per_buffer verbose b_dec_init_method from_pretrained_path l1_coefficient lp_norm lr lr_scheduler_name "
        "lr_warm_up_steps train_batch_size dataset_name dataset_path dataset_train_path dataset_val_path "
        "use_ghost_grads feature_sampling_window dead_feature_window dead_feature_threshold log_to_wandb "
        "wandb_project wandb_entity wandb_log_frequency n_validation_runs n_checkpoints checkpoint_path run_name"
    )
}
"""A skip connection is that of a transcoder, which is refused."""
