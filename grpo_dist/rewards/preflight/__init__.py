"""Rewards tried on completions whose worth is known, before a model is trained on them.

`forms` writes right answers, `cases` spoils them, `tried` holds what each function paid, `checks` judges that.
All of it is arithmetic on text and numbers; the functions themselves are called by `grpo_dist.training.rewards.trial`.
"""
