# Python 3.11, pip and make are all that is needed. Everything is installed into .venv with the pins of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The real PP-OCRv4 models. Without its dependencies: it would bring the OpenCV build that needs a screen's libraries.
PPOCR := rapidocr-onnxruntime
PINS := constraints.txt pyproject.toml

.PHONY: demo test lab notebooks lint clean

demo: $(VENV)/.walkthroughs ## Run the OCR walkthrough from end to end and print its report's path
	$(BIN)/python notebooks/build.py --demo ocr

test: $(VENV)/.all ## Install everything and run the whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

lab: $(VENV)/.walkthroughs ## Open JupyterLab on the first notebook
	$(BIN)/jupyter lab notebooks/ocr.ipynb

notebooks: $(VENV)/.walkthroughs ## Make the executed notebooks again from notebooks/source
	$(BIN)/python notebooks/build.py

lint: $(VENV)/.all ## Check style and formatting rules
	$(BIN)/ruff check .

clean: ## Remove the virtual environment and every stored result
	rm -rf $(VENV) runs notebooks/runs

$(VENV)/.made:
	$(PYTHON) -c "import sys; sys.exit(None if sys.version_info[:2] == (3, 11) else \
	  f'This needs Python 3.11; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.walkthroughs: $(PINS) | $(VENV)/.made
	@echo "Installing what the walkthroughs need into $(VENV) (about 1.1 GB to download) ..."
	$(PIP) -e ".[paddle,tensorflow,ocr,detection,diffusion,openvino,ui]"
	$(PIP) --no-deps $(PPOCR)
	touch $@

$(VENV)/.all: $(PINS) | $(VENV)/.made
	@echo "Installing everything into $(VENV) (about 1.7 GB to download) ..."
	$(PIP) -e ".[all,dev]"
	$(PIP) --no-deps $(PPOCR)
	touch $@ $(VENV)/.walkthroughs
