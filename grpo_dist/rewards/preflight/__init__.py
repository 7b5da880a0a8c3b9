"""Tries rewards on completions of known quality, before a model is trained on them.

`forms` writes right answers, `cases` corrupts them, `trial` holds what each function paid, `checks` judges that. All of
it is arithmetic on text and numbers; the functions themselves are called by `grpo_dist.training.rewards.trial`.
"""
