"""Multiple-choice questions with k examples before them: tasks, scoring, gaps and their power."""
