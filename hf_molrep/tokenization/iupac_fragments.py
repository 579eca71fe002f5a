"""
Fragments of systematic names and the pieces into which some of them are split: data of `iupac.py`.

The lists and their order are those of Krasnov, Khokhlov, Fedorov, Sosnin, "Transformer-based artificial neural networks
for the conversion between chemical notations", Scientific Reports 11, 14798 (2021), as given in the authors' repository
https://github.com/sergsb/IUPAC2Struct (MIT licence, (c) 2020 Sergey Sosnin), file iupac_model.py. Only facts of
nomenclature are taken from there: which fragments there are, which comes first, and where a fragment is split.
"""

# Group, fragments. The first that fits is taken, so the order matters: some fragments never match.
FRAGMENTS: tuple[tuple[str, str], ...] = (
    (
        "heterocycles",
        "indolizin arsindol indol furan furo piperazin pyrrolidin pyrrolizin thiophen thiolo imidazolidin "
        "imidazol pyrimidin pyridin piperidin morpholin pyrazol pyridazin oxocinnolin cinnolin pyrrol "
        "thiochromen oxochromen chromen quinazolin phthalazin quinoxalin carbazol xanthen pyrazin purin "
        "indazol naphthyridin quinolizin guanidin pyranthren pyran thianthren thian acridin acrido yohimban "
        "porphyrin pteridin tetramin pentamin borinin borino boriran borolan borol borinan phenanthridin "
        "quinolin perimidin corrin phenanthrolin phosphinolin indacen silonin borepin",
    ),
    (
        "trivial carbon skeletons",
        "naphthalen naphthal inden adamant fluoren thiourea urea anthracen acenaphthylen carbohydrazide "
        "annulen aniline acetaldehyde benzaldehyde formaldehyde phthalaldehyde acephenanthrylen phenanthren "
        "chrysen carbanid chloroform fulleren cumen formonitril fluoranthen terephthalaldehyde azulen picen "
        "pyren pleiaden coronen tetracen pentacen perylen pentalen heptalen cuban hexacen oxanthren ovalen "
        "aceanthrylen",
    ),
    ("acid, ether", "acid ether"),
    (
        "elements",
        "hydrogen helium lithium beryllium nitrogen oxygen fluorine neon sodium magnesium aluminum silicon "
        "phosphorus sulfur chlorine argon potassium calcium scandium titanium vanadium chromium manganese "
        "iron cobalt nickel copper zinc gallium germanium arsenic selenium bromine krypton rubidium yttrium "
        "zirconium niobium molybdenum technetium ruthenium rhodium palladium silver cadmium indium antimony "
        "tellurium iodine xenon cesium barium lanthanum cerium praseodymium neodymium latinum promethium "
        "samarium europium gadolinium terbium dysprosium holmium erbium thulium ytterbium lutetium hafnium "
        "tantalum tungsten rhenium osmium iridium platinum gold aurum mercury thallium lead bismuth polonium "
        "astatine radon francium radium actinium thorium protactinium uranium neptunium plutonium americium "
        "curium berkelium einsteinium fermium californium mendelevium nobelium lawrencium rutherfordium "
        "dubnium seaborgium bohrium hassium meitnerium tin",
    ),
    ("isotope prefixes", "protio deuterio tritio"),
    (
        "other ions",
        "perchlorate perbromate periodate hypofluorite hypochlorite hypobromite hypoiodite nitrate silicate hydride",
    ),
    (
        "alkanes",
        "methane methanoyl methan ethane ethanoyl ethan propanoyl propane propan propa butane butanoyl butan "
        "buta pentane pentanoyl pentan hexane hexanoyl hexan heptane heptanoyl heptan octane octanoyl octan "
        "nonane nonanoyl nonan decane decanoyl decan icosane icosan cosane cosan contane contan",
    ),
    (
        "multiplying prefixes",
        "mono un bis bi dicta di tetraza tetraz tetra tetr pentaza pentaz penta hexaza hexa heptaza hepta "
        "octaza octa nonaza nona decaza deca kis",
    ),
    ("name prefixes", "hydroxide hydroxyl hydroxy hydrate hydro cyclo spiro iso"),
    (
        "alkyl prefixes",
        "methylidene methyl ethyl isopropyl propyl isobutyl sec-butyl tert-butyl butyl pentyl hexyl heptyl octyl",
    ),
    (
        "carbon stems",
        "meth eth prop but pent hex hept oct non dec icosa icos cosa cos icon conta cont con heni hene hen hecta hect",
    ),
    ("silicon", "silanide silane silole silanyl silyloxy silylo silyl sila"),
    (
        "nitrogen prefixes",
        "hydrazono hydrazino nitroso nitrous nitro formamido amino amido imino imido anilino anilin "
        "thiocyanato cyanato cyano azido azanidyl azanyl azanide azanida azonia azonio amidino nitramido "
        "diazo",
    ),
    (
        "sulfur prefixes",
        "sulfanylidene sulfinamoyl sulfonimidoyl sulfinimidoyl sulfamoyl sulfonyl sulfanyl sulfinyl sulfinato "
        "sulfenato sulfonato sulfonio sulfino sulfono sulfido",
    ),
    (
        "carbon prefixes",
        "carboxylate carboxylato carboxylic carboxy halocarbonyl carbamoyl carbonyl carbamo thioformyl formyl",
    ),
    ("metal prefixes", "alumanyl gallanyl stannyl plumbyl"),
    ("non-metal prefixes", "tellanyl germanyl germyl"),
    (
        "further prefixes",
        "benzhydryl benzoxaza benzoxaz benzoxa benzox benzo benzyl benz phenacyl phenanthro phenyl phenoxaza "
        "phenoxaz phenoxy phenox phenol pheno phen acetyl aceto acet peroxy oxido oxino oxalo oxolo oxocyclo "
        "oxol oxoc oxon oxo oxy pyrido pyrimido imidazo naphtho stiboryl stibolo",
    ),
    (
        "halogen prefixes",
        "fluoro fluoranyl fluoridoyl fluorido chloro chloranyl chloridoyl chlorido bromo bromanyl bromidoyl "
        "bromido iodo iodanyl iodidoyl iodanuidyl iodido",
    ),
    ("pnictogen prefixes", "phosphonato phosphoroso phosphonia phosphoryl phosphanyl arsono arsanyl stiba"),
    (
        "carbon suffixes",
        "carbonitrile carboxamide carbamimidothioate carbodithioate carbohydrazonate carbonimidoyl "
        "carboximidoyl carbamimidoyl carbamimidate carbamimid carbaldehyde carbamate carbothioyl "
        "carboximidothioate carbonate carboximidamide carboximidate carbamic carbonochloridate "
        "carbothialdehyde carbothioate carbothioic carbono carbon carbo formate formic",
    ),
    (
        "nitrogen suffixes",
        "ammonium hydrazide hydrazine hydrazin amine imine oxamide nitramide formamide cyanamide amide imide "
        "amidine isocyanide azanium thiocyanate cyanate cyanic cyanatidoyl cyanide nitrile nitrite "
        "hydrazonate",
    ),
    (
        "sulfur suffixes",
        "sulfonamide sulfinamide sulfonamido sulfonic sulfamic sulfinic sulfuric thial thione thiol sulfonate "
        "sulfite sulfate sulfide sulfinate sulfanium sulfamate sulfane sulfo",
    ),
    ("halogen suffixes", "fluoride chloride chloridic perchloric bromide iodide iodane hypoiodous hypochlorous"),
    (
        "pnictogen suffixes",
        "phosphanium phosphate phosphite phosphane phosphanide phosphonamidic phosphonous phosphinous "
        "phosphinite phosphono arsonic stibane",
    ),
    ("metal suffixes", "chromium stannane gallane alumane aluminane aluminan"),
    ("non-metal suffixes", "germane germa"),
    (
        "further suffixes",
        "ane ano an ene enoxy eno en yne yn yl peroxol peroxo terephthalate terephthalic phthalic phthalate "
        "oxide oate ol oic ic al ate ium one",
    ),
    ("heterocycle suffixes", "ir et olo ol ino in ep oc on ec"),
    ("isotope suffix", "protide"),
    ("boron", "boranyl boranuide boronamidic boranuida boranide borinic borate borane boran borono boron bora"),
    ("selenium", "selanyl seleno"),
    (
        "heteroatom prefixes",
        "thiaz oxaza oxaz oxan oxa ox aza az thia thioc thion thio thi telluro phospha phosph selen bor sil "
        "alum ars germ tellur imid",
    ),
    ("endings", "idine idene idin ane an ine in id e"),
    ("o, do and tri", "do trisodium tris triacetyl triamine triaza triaz tria trityl tri o"),
)

_ALKANE_STEMS = "meth eth prop but pent hex hept oct non dec cos cont icos"
_SPLIT_HETEROCYCLES = (
    "thi|az thi|oc thi|on benz|ox benz|oxa benz|ox|az benz|ox|aza phen|ox phen|oxy phen|oxa phen|ox|az phen|ox|aza "
    "phen|ol en|oxy ox|az ox|aza ox|ol ox|olo ox|an ox|oc ox|on "
    "oxo|chromen oxo|cinnolin oxo|cyclo thio|chromen thio|cyanato"
)
_SPLIT_MULTIPLIERS = (
    "tri|az tri|aza tri|amine tri|acetyl tri|sodium "
    "tetr|az tetr|aza pent|az pent|aza hex|aza hept|aza oct|aza non|aza dec|aza"
)

# Fragments that become several tokens, separated by "|".
SPLITS: tuple[str, ...] = (
    *(f"{stem}|{ending}" for stem in _ALKANE_STEMS.split() for ending in ("ane", "an")),
    *_SPLIT_HETEROCYCLES.split(),
    *_SPLIT_MULTIPLIERS.split(),
)
