"""Words of four kinds, common enough to be one token each in most vocabularies."""

_KINDS = {
    "animals": (
        "dog cat horse cow pig sheep goat lion tiger bear wolf fox deer rabbit mouse rat squirrel "
        "monkey elephant camel donkey whale shark dolphin seal frog toad snake lizard turtle eagle "
        "hawk owl crow duck goose chicken turkey parrot pigeon ant bee wasp fly mosquito spider "
        "beetle butterfly moth worm snail crab lobster salmon trout beaver bat hare kangaroo "
        "giraffe zebra leopard buffalo crocodile"
    ),
    "countries": (
        "France Germany Italy Spain Portugal Greece Turkey Russia China Japan Korea India Pakistan "
        "Iran Iraq Egypt Kenya Nigeria Ghana Morocco Canada Mexico Brazil Argentina Chile Peru "
        "Colombia Cuba Australia Norway Sweden Finland Denmark Poland Austria Hungary Romania "
        "Bulgaria Serbia Croatia Belgium Switzerland Ireland Scotland England Iceland Israel "
        "Jordan Syria Lebanon Yemen Thailand Vietnam Indonesia Malaysia Singapore Nepal Bangladesh "
        "Ethiopia Sudan Uganda Tanzania Algeria Tunisia"
    ),
    "foods": (
        "bread butter cheese milk cream egg meat beef pork ham bacon rice pasta soup salad pizza "
        "cake pie cookie chocolate sugar salt pepper honey jam apple pear banana orange lemon "
        "grape cherry peach plum strawberry mango potato tomato onion garlic carrot cabbage corn "
        "bean pea lettuce spinach mushroom pumpkin coffee tea juice wine beer water oil flour "
        "sauce vinegar nut almond cereal yogurt toast"
    ),
    "things": (
        "hammer saw drill knife axe nail screw rope ladder shovel brush bucket needle scissors pen "
        "pencil ruler clock lamp chair table desk bed door window lock key bottle cup plate bowl "
        "fork spoon pan pot oven phone radio camera computer printer keyboard engine wheel tire "
        "truck car bus train boat ship bicycle plane rocket bag box basket hat coat shirt shoe "
        "glove belt mirror"
    ),
}
KINDS = {kind: tuple(words.split()) for kind, words in _KINDS.items()}
"""64 words each, none twice."""
