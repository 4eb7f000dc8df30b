"""Draw tokens so that each draw depends on its own seed and position only."""

import torch

# SplitMix64 (Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014),
# written as signed 64-bit integers: torch multiplies and adds those modulo 2**64.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64


def to_signed_64(seed: int) -> int:
    """Reduce any integer modulo 2**64, as the signed integer with the same bits."""
    return (seed + 2**63) % 2**64 - 2**63


def _shift_right(x: torch.Tensor, num_bits: int) -> torch.Tensor:
    # torch's shift copies the sign bit; the mask removes those copies.
    return (x >> num_bits) & (2 ** (64 - num_bits) - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shift_right(x, 30)) * _MULTIPLIER_1
    x = (x ^ _shift_right(x, 27)) * _MULTIPLIER_2
    return x ^ _shift_right(x, 31)


def uniforms(seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """One number in [0, 1) per (seed, position), the same on every device.

    The seed is hashed before the position is added, so neighbouring seeds do not share draws
    at shifted positions.

    Args:
        seeds: int64, any shape.
        positions: int64, index of the generated token, broadcastable to `seeds`.

    Returns:
        float64 multiples of 2**-53 in [0, 1), of the broadcast shape.
    """
    x = _mix(_mix(seeds + _GOLDEN) + (positions + 1) * _GOLDEN)
    return _shift_right(x, 11).to(torch.float64) * 2.0**-53


def nucleus(probabilities: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Mark the smallest set of most probable tokens that reaches `top_p`.

    Args:
        probabilities: Shape (B, V), float32.
        top_p: Shape (B,), float64, in (0, 1]; rows of 1 keep every token.

    Returns:
        Bool, shape (B, V), at least one True per row. Ties go to the lower id.
    """
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered
    is_kept = (before < top_p[:, None]) | (top_p >= 1)[:, None]
    return torch.empty_like(is_kept).scatter_(-1, order, is_kept)


def draw(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draw one token per row by inverting the distribution function.

    Args:
        probabilities: Shape (B, V), not negative, positive sum; need not sum to one.
        uniform: Shape (B,), float64 in [0, 1).

    Returns:
        Token ids, shape (B,), int64: the first with a cumulative probability above
        `uniform` times the sum. Never a token of probability 0.
    """
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    # Parallel sums need not be monotone in the last bit: a token of probability 0 is removed
    # here, and the largest value that is left is the sum, so that one token is always above.
    cumulative = cumulative.masked_fill_(probabilities == 0, 0.0)
    threshold = uniform[:, None] * cumulative.amax(dim=-1, keepdim=True)
    return (cumulative > threshold).to(torch.int8).argmax(dim=-1)


class TokenSampler:
    """Samples the next token of many rows, each with its own settings.

    Args:
        temperatures: One per row; 0 is greedy.
        top_ps: One per row.
        seeds: One per row, any integers.
        device: Where the logits will be.
    """

    def __init__(
        self,
        temperatures: list[float],
        top_ps: list[float],
        seeds: list[int],
        device: torch.device,
    ) -> None:
        temperature = torch.tensor(temperatures, dtype=torch.float32, device=device)
        self._is_greedy = temperature == 0
        self._temperature = torch.where(self._is_greedy, 1.0, temperature)[:, None]
        self._top_p = torch.tensor(top_ps, dtype=torch.float64, device=device)
        signed = [to_signed_64(seed) for seed in seeds]
        self._seeds = torch.tensor(signed, dtype=torch.int64, device=device)
        self._any_greedy = any(value == 0 for value in temperatures)
        self._all_greedy = all(value == 0 for value in temperatures)
        self._any_scaled = any(value not in (0, 1) for value in temperatures)
        self._any_top_p = any(value < 1 for value in top_ps)

    def __call__(
        self, logits: torch.Tensor, rows: torch.Tensor, position: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose one token per row.

        Args:
            logits: Shape (B, V), any float dtype.
            rows: Which of the sampler's rows these are. Shape (B,), int64.
            position: Index of the token among the generated ones.

        Returns:
            Token ids (B,), int64, and their log-probabilities (B,), float32 (`Generation.logps`).
        """
        logits = logits.float()
        if self._any_scaled:
            logits = logits / self._temperature[rows]
        logps = logits.log_softmax(dim=-1)
        if self._all_greedy:
            tokens = logps.argmax(dim=-1)
        else:
            probabilities = logps.exp()
            if self._any_top_p:
                is_kept = nucleus(probabilities, self._top_p[rows])
                probabilities = probabilities.masked_fill(~is_kept, 0.0)
            at = torch.tensor(position, device=logits.device)
            tokens = draw(probabilities, uniforms(self._seeds[rows], at))
            if self._any_greedy:
                tokens = torch.where(self._is_greedy[rows], logps.argmax(dim=-1), tokens)
        return tokens, logps.gather(-1, tokens[:, None])[:, 0]
