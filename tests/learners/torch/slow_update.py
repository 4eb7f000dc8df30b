"""The loss of one minibatch in float64, row by row and token by token, without padding."""

import torch
from transformers import AutoModelForCausalLM

from prefix_rft_rllib.rollouts import row_data


def load_float64(path, weights=None):
    """The model at a path in float64, with other weights if given."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    if weights is not None:
        model.load_state_dict({n: v.double() for n, v in weights.items()}, strict=False)
    return model


def distributions(model, row, temperature):
    """Log probabilities of the whole vocabulary at every response token. Shape (R, V)."""
    ids = [int(token) for token in row.observations.data]
    num_prompt = len(row_data.prompt_ids_of(row))
    logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    return torch.log_softmax(logits[num_prompt - 1 : len(ids) - 1] / temperature, dim=-1)


def token_logps(model, row, temperature):
    """Log probabilities of the response tokens, a list of scalars."""
    ids = [int(token) for token in row_data.response_ids_of(row)]
    table = distributions(model, row, temperature)
    return [table[place, token] for place, token in enumerate(ids)]


def entropies(model, row, temperature):
    """Entropies at the response tokens, a list of scalars."""
    return [-(row.exp() * row).sum() for row in distributions(model, row, temperature)]


def kept_prefix_tokens(old_model, rows, temperature, percent=20):
    """(row, place) of the prefix tokens that keep their weight: the highest entropies of all."""
    candidates = []
    for number, row in enumerate(rows):
        num_prefix = row_data.num_prefix_tokens_of(row)
        values = [value.item() for value in entropies(old_model, row, temperature)]
        candidates += [(-values[place], number, place) for place in range(num_prefix)]
    num_kept = -(-len(candidates) * percent // 100)
    return {(number, place) for _, number, place in sorted(candidates)[:num_kept]}


def prefix_rft_loss(model, old_model, rows, *, max_response_tokens, temperature, clip=0.2):
    """algorithms, Prefix-RFT: the entropy selection and the clipped loss of all rows."""
    kept = kept_prefix_tokens(old_model, rows, temperature)
    total = torch.zeros((), dtype=torch.float64)
    for number, row in enumerate(rows):
        advantage = row.custom_data[row_data.ADVANTAGE]
        num_prefix = row_data.num_prefix_tokens_of(row)
        with torch.no_grad():
            old = token_logps(old_model, row, temperature)
        for place, logp in enumerate(token_logps(model, row, temperature)):
            if place < num_prefix and (number, place) not in kept:
                continue
            ratio = (logp - old[place]).exp()
            bounded = ratio.clamp(1 - clip, 1 + clip)
            total = total - torch.minimum(ratio * advantage, bounded * advantage)
    return total / len(rows) / max_response_tokens


def prefix_rft_gradient(config, rows, weights=None):
    """Gradient of the Prefix-RFT loss at `weights`; the old policy is the initial model."""
    model = load_float64(config.model_path, weights)
    loss = prefix_rft_loss(
        model,
        load_float64(config.model_path),
        rows,
        max_response_tokens=config.max_response_tokens,
        temperature=config.temperature,
    )
    return gradients_of(loss, model)


def sampled_token_mean(rows, values_of_row):
    """Mean over the sampled tokens of all rows of `values_of_row(row)`."""
    values = []
    for row in rows:
        num_given = row_data.num_prefix_tokens_of(row)
        values += values_of_row(row)[num_given:]
    return sum(values) / len(values)


def gradients_of(loss, model):
    """Gradients by name of parameter."""
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()}
