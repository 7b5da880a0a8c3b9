"""The vLLM servers of a run: what runs inside them, what starts and supervises them, and the client that uses them."""
