"""Long work: recordings that are taken now and transcribed when there is time, and outlive their worker."""
