"""The loss and the gradient of every method, token by token in float64.

Written from the methods' definitions with plain Python numbers; nothing here calls the package, and
no gradient comes from autograd. Each function adds up what its method does to each token.
"""

import math
import statistics
from fractions import Fraction

PREFIX, RESPONSE, DEMONSTRATION = 2, 3, 4
CLIP = 0.2


class Tokens:
    """Columns as Python lists, and the loss and gradient that methods add up.

    Attributes:
        loss: The loss that the learner reports: weights detached.
        gradient: d loss / d log pi of every token.
        objective: What is maximised, with nothing detached; where it differs from minus the loss.
    """

    def __init__(self, columns, logp, t_max):
        self.t_max = t_max
        self.codes = columns.region.tolist()
        self.advantage = columns.advantage.double().tolist()
        self.logp = logp.double().tolist()
        self.old_logp = columns.old_logp.double().tolist()
        self.entropy = columns.entropy.double().tolist()
        self.index = columns.row_index.tolist()
        self.key = columns.row_key.tolist()
        self.num_members = sum(columns.is_member.tolist())
        ones = [[1.0] * len(row) for row in self.codes]
        given = columns.importance_weight
        self.importance = ones if given is None else given.double().tolist()
        self.loss = self.objective = 0.0
        self.gradient = [[0.0] * len(row) for row in self.codes]

    def places(self, code):
        """(row, position) of all tokens of a region."""
        return [
            (row, position)
            for row, codes in enumerate(self.codes)
            for position, own in enumerate(codes)
            if own == code
        ]

    def add_surrogate(self, place, advantage, clip, high=CLIP):
        """min(rho * A, clip(rho) * A); its slope is rho * A where the first is the smaller."""
        row, position = place
        advantage *= self.importance[row][position]
        rho = math.exp(self.logp[row][position] - self.old_logp[row][position])
        free = bounded = rho * advantage
        if clip:
            bounded = min(max(rho, 1 - CLIP), 1 + high) * advantage
        self.loss -= min(free, bounded)
        self.objective += min(free, bounded)
        self.gradient[row][position] -= free if free <= bounded else 0.0

    def add_imitation(self, place, weight):
        """Weight * log pi, the weight detached."""
        row, position = place
        self.loss -= weight * self.logp[row][position]
        self.objective += weight * self.logp[row][position]
        self.gradient[row][position] -= weight

    def add_shaped(self, place, advantage, gamma):
        """A * p / (p + gamma): d p / d log p = p, so its slope is A * p * gamma / (p + gamma)^2."""
        row, position = place
        p = math.exp(self.logp[row][position])
        slope = advantage * p * gamma / (p + gamma) ** 2
        self.loss -= slope * self.logp[row][position]
        self.objective += advantage * p / (p + gamma)
        self.gradient[row][position] -= slope

    def highest(self, places, fraction, rank):
        """The ceil(fraction * N) places of highest rank; ties: earlier row, earlier position."""
        ordered = sorted(places, key=lambda place: (-rank(*place), self.index[place[0]], place[1]))
        return ordered[: math.ceil(Fraction(str(fraction)) * len(places))]

    def rank_by_entropy(self, row, position):
        return self.entropy[row][position]

    def rank_at_random(self, row, position):
        """SplitMix64 with the row's key as state, after position + 1 steps."""
        return _splitmix(_splitmix(self.key[row]) + (position + 1) * 0x9E3779B97F4A7C15) >> 11


def _splitmix(state):
    state %= 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def mean_advantages(rewards):
    """Dr.GRPO: reward minus the mean of the group."""
    return [reward - statistics.fmean(rewards) for reward in rewards]


def standardised_advantages(rewards):
    """GRPO: divided by the sample standard deviation plus 1e-6."""
    deviation = statistics.stdev(rewards)
    return [advantage / (deviation + 1e-6) for advantage in mean_advantages(rewards)]


def rft(tokens, *, clip=True, entropy_keep_fraction=1.0):
    """-(1 / members) sum over rows (1 / T_max) sum over sampled tokens."""
    places = tokens.places(RESPONSE)
    for place in tokens.highest(places, entropy_keep_fraction, tokens.rank_by_entropy):
        _constant_length(tokens, place, clip)


def _constant_length(tokens, place, clip=True):
    scale = tokens.num_members * tokens.t_max
    tokens.add_surrogate(place, tokens.advantage[place[0]] / scale, clip)


def prefix_rft(tokens, *, entropy_keep_fraction=0.2, rank=None):
    rft(tokens)
    rank = rank or tokens.rank_by_entropy
    for place in tokens.highest(tokens.places(PREFIX), entropy_keep_fraction, rank):
        _constant_length(tokens, place)


def random_prefix(tokens, *, keep_fraction=0.2):
    prefix_rft(tokens, entropy_keep_fraction=keep_fraction, rank=tokens.rank_at_random)


def bottom_entropy(tokens, *, keep_fraction=0.2):
    prefix_rft(
        tokens,
        entropy_keep_fraction=keep_fraction,
        rank=lambda *place: -tokens.rank_by_entropy(*place),
    )


def update_all(tokens):
    prefix_rft(tokens, entropy_keep_fraction=1)


def static_prefix_weight(tokens, *, weight=0.001):
    rft(tokens)
    for place in tokens.places(PREFIX):
        tokens.add_imitation(place, weight / tokens.num_members / tokens.t_max)


def rft_on_policy_clip(tokens, *, entropy_keep_fraction=0.2):
    rft(tokens, entropy_keep_fraction=entropy_keep_fraction)


def grpo(tokens, *, factor=1.0):
    """The mean over rows with sampled tokens of the mean over the row's sampled tokens."""
    places = tokens.places(RESPONSE)
    lengths = [codes.count(RESPONSE) for codes in tokens.codes]
    num_rows = sum(length > 0 for length in lengths)
    for row, position in places:
        advantage = factor * tokens.advantage[row] / lengths[row] / num_rows
        tokens.add_surrogate((row, position), advantage, clip=True)


def sft(tokens, *, coeff=1.0, code=DEMONSTRATION, phi=False):
    """The mean log probability over all tokens of the region, whatever their rows."""
    places = tokens.places(code)
    for row, position in places:
        p = math.exp(tokens.logp[row][position])
        tokens.add_imitation((row, position), coeff * (p * (1 - p) if phi else 1) / len(places))


def dft(tokens):
    """Each token by its own probability."""
    trsft(tokens, threshold=1)


def trsft(tokens, *, threshold=0.1):
    """Tokens below the threshold by their share of it."""
    places = tokens.places(DEMONSTRATION)
    for row, position in places:
        p = math.exp(tokens.logp[row][position])
        tokens.add_imitation((row, position), min(1, p / threshold) / len(places))


def psft(tokens, *, clip_high=0.28):
    """PPO with the advantage 1."""
    places = tokens.places(DEMONSTRATION)
    for place in places:
        tokens.add_surrogate(place, 1 / len(places), clip=True, high=clip_high)


def rl_with_sft_loss(tokens, *, sft_coeff=1.0):
    rft(tokens)
    sft(tokens, coeff=sft_coeff)


def uft(tokens, *, imitation_coeff=0.001):
    grpo(tokens)
    sft(tokens, coeff=imitation_coeff, code=PREFIX)


def luffy(tokens, *, gamma=0.1, clip=False):
    rft(tokens, clip=clip)
    for row, position in tokens.places(DEMONSTRATION):
        advantage = tokens.advantage[row] / tokens.num_members / tokens.t_max
        tokens.add_shaped((row, position), advantage, gamma)


def chord_mu(iteration, mu_peak=0.5, mu_valley=0.02, warmup=200, decay=400):
    """Up in a straight line, down along half a cosine, then flat."""
    if iteration < warmup:
        return mu_peak * iteration / warmup
    if iteration >= warmup + decay:
        return mu_valley
    cosine = math.cos(math.pi * (iteration - warmup) / decay)
    return mu_valley + (mu_peak - mu_valley) * (1 + cosine) / 2


def chord(tokens, *, mu, phi=True):
    grpo(tokens, factor=1 - mu)
    sft(tokens, coeff=mu, phi=phi)
