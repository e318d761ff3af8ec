"""What is kept of a training: MLflow's runs and versions, cards, judged windows."""
