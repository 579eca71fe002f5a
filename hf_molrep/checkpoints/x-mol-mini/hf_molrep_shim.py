from hf_molrep import *  # pip install hf-molrep
