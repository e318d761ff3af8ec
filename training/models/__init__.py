"""The models' mathematics: no shop and no settings of one."""
