"""Which version answers: promotion, comparison, reproduction, when to train again."""
