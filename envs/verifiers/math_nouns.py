"""Nouns of which answers count: the closed list behind `18 apples` and 18.

They are the nouns that follow "how many" in collections of word problems, in the singular. A noun
that is not here is a word like any other: it must agree.
"""

_NOUNS = """
unit way piece student page integer book time point apple square marble cookie slice egg value
box fish bottle number ticket pencil can card bird balloon game bag pack kid tree pair chair
animal liter cake flower sticker coin stamp customer block orange digit friend fruit candy cat
girl toy rose peach shirt seat car banana pen jellybean word song dog wheel email combination
divisor pizza leg pie ball step diagonal bead glass push seed question order row cupcake tomato
app action group handshake item bracelet cow photo sandwich camper cracker triangle multiple
room movie chicken plant shelf doll picture quarter seashell package hotdog nickel pill trip
strawberry serving pet passenger frog duck shoe nail painting lemon scoop necklace house problem
leaf donut potato sack path zero factor stick meal shell jar brownie sheet table rectangle case
outfit license sequence goat baseball star plate employee match set button player towel fishes
lollipop candle stork solution element letter plum skip floor member gift round loaf man woman
goldfish envelope bouquet sheep lap eye home guest soda dish pastry penny drum line carrot cherry
prime arrangement possibility rabbit lion tire chocolate night bale container dress ant eraser
bar biscuit log berry plank episode horse rock basketball bill bus adult doughnut sweet chapter
marshmallow pebble flavor spoon marker file poster bee puppy wrapper subset term gnome mango
scarf roll brick present key meatball acorn parent cricket carton vegetable gumball notebook
visitor novel truck oyster kitten class school token basket spot lego comic chip pancake ear
machine hit widget batch goose daisy bush hole hamburger tile guppy tray sock computer album
cube kind popsicle ride pupil revolution polynomial edge bounce driveway grape beaker barrel
session boat grandchild matchstick flyer building toad spoke bolt nut straw wing muffin shark
carnation tulip jump dessert watermelon decoration firework wall insect onion snail jean lamb
drawing bug paperclip minnow article hat poodle copy pin bandage touchdown raccoon mistake packet
section steak mushroom stair space jewel level musician sausage pillow door gem whisker seedling
noodle aquarium patient mouse cap alligator branch beat crate petal tin milkshake portion ribbon
cloud pigeon color colour peanut phone blueberry tissue dime treat paper gemstone window tub
cucumber battery snake newspaper rat flea circle reptile species worker feather teacher penguin
pretzel drink van hero bedroom vase cage orchid magazine bookshelf invitation crunch recipe face
team bacteria subcommittee answer shirt interior sum dap choice list tower switch canoe flag
segment entry person child side vertex corner angle point cup pound outcome permutation
function pattern pizza ounce root intersection region part committee day hour result test game
vote grade goal inning run shot pass candle bulb light lamp bone tooth
chicken pig hen cattle calf bull ox wolf bear monkey elephant tiger zebra camel deer fox owl
crow eagle parrot butterfly spider worm crab lobster shrimp whale dolphin seal turtle lizard
bicycle bike motorcycle train plane airplane ship tractor engine ticket cabin tent bed desk sofa
couch bench lid pot pan fork knife bowl mug napkin blanket sheet rug curtain mirror clock watch
ring necklace earring chain belt tie coat jacket sweater glove boot sandal sneaker trouser pant
skirt blouse uniform wallet purse suitcase backpack bucket barrel crate pallet brush broom shovel
hammer saw screw tool wire rope string stone statue card deck die domino tile chip puzzle kite
disk disc record tape file photo camera radio television bracket sign symbol sentence paragraph
story poem essay report exam quiz lesson course degree match race lap meter trophy medal prize
award point score player coach fan club band choir orchestra dancer singer actor doctor nurse
lawyer farmer cook chef baker waiter driver pilot soldier sailor police officer engineer artist
boy son daughter brother sister cousin uncle aunt grandparent family neighbor stranger couple
bee hive nest tank pond lake river island mountain hill road street bridge town city village
state country continent planet moon galaxy atom molecule cell gene strand electron proton lattice
term coefficient exponent variable equation inequality relation matrix vector dimension plane
sphere cone cylinder prism pyramid polygon pentagon hexagon octagon trapezoid parallelogram
rhombus quadrilateral chord arc radius diameter tangent parabola ellipse divisor palindrome
string tuple triple quadruple triplet quintuple partition coloring colouring tiling route tour
walk move turn toss flip throw draw trial experiment sample event round stage phase period
generation cycle iteration operation calculation comparison swap rotation reflection symmetry
dollar bill quarter loonie check cheque payment installment share bond loan job task chore shift
project meeting appointment reservation call message letter text post like follower subscriber
visit view click download upload photo pixel bit byte signal sound note chord beat measure bar
loop knot lock safe drawer cabinet closet cart trailer wagon sled ski skate ball bat racket net
flour sugar butter cheese soup wine beer oil gas gasoline salt honey coffee tea lemonade gravel
sand soil cement fabric yarn rice juice milk water
"""

COUNTED = frozenset(_NOUNS.split())
"""Nouns in the singular."""
