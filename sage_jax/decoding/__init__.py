"""From a model and a prompt to events: grammar, sampling and the compiled loop."""
