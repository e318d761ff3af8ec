"""Answers for assistants: the desk's lists, cards and figures as tools of the Model Context Protocol."""
