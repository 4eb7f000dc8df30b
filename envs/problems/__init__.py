"""Problems: read, merged, made token ids, filtered and split; each step has a module."""

from prefix_rft_rllib.envs.problems.loading import load_problem_set, receive_problem_set
from prefix_rft_rllib.envs.problems.problem import TRAIN, Problem
from prefix_rft_rllib.envs.problems.problem_set import ProblemSet

__all__ = ["TRAIN", "Problem", "ProblemSet", "load_problem_set", "receive_problem_set"]
