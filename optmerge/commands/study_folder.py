"""What lies in the folder of a study."""

BEST = "best"  # folder: the winner
RESULT = "result.json"
FRONT = "front"  # folder: recipes of the best compromises between several objectives
REPORT = "report"  # folder: a page with all pictures
RESPONSES = "responses"  # folder: what trials that run have answered, and what was kept of others
