"""Programs that a model writes: found in a completion, run in a sandbox, judged by the tests of their row."""
