"""`asr serve`: models over HTTP, as clients of OpenAI's transcription API expect them."""
