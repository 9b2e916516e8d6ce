"""List what other programs of the field call our options and values, for "did you mean"."""

from collections.abc import Mapping

# The names of other programs, in lower case and without separators, by our name.
_BY_NAME: Mapping[str, str] = {
    # Options.
    "lr": "learningrate lrate lr0 baselr initlr initiallr initiallearningrate maxlr stepsize eta",
    "batch_size": "batch bs bsz batchsz batches minibatch minibatchsize trainbatchsize"
    " trainbatch perdevicetrainbatchsize imagesperbatch",
    "epochs": "epoch numepochs nepochs maxepochs numtrainepochs trainepochs nepoch nbepochs"
    " iterations maxepoch totalepochs",
    "num_workers": "workers nworkers numworkers numworker dataloaderworkers"
    " dataloadernumworkers loaderworkers nprocs numprocesses",
    "device": "gpu gpus gpuid gpuids cuda accelerator devices nocuda usecuda",
    "model": "arch architecture backbone network net modelname modeltype encoder cnn modelarch",
    "schedule": "lrscheduler scheduler lrschedule sched lrpolicy lrschedulertype schedulertype"
    " annealing",
    "weight_decay": "wd l2 l2reg l2regularization regularization weightdecayrate decayweight"
    " weightreg",
    "out_dir": "output outputdir outputfolder outdir outfolder out outputpath savedir savepath"
    " resultsdir resultdir results logdir checkpointdir ckptdir workdir",
    "run_name": "name runname run experiment expname experimentname exp jobname runid displayname",
    "optimizer": "opt optim optimiser optimizername optimizertype solver",
    "seed": "randomseed rngseed manualseed randomstate rng",
    "data_dir": "data dataset datasetdir datasetpath datapath dataroot datafolder imagedir images"
    " imagesdir imagefolder imagepath imgdir traindir inputdir input inputfolder inputpath"
    " pictures",
    "weights": "pretrained pretrainedweights usepretrained initweights checkpointpath pretrain"
    " init initfrom loadweights",
    "patience": "earlystopping earlystop earlystoppingpatience earlystoppatience",
    "clip": "gradclip gradientclip clipgrad clipnorm gradclipnorm maxgradnorm gradnorm"
    " gradientclipval clipgradnorm clipgradient",
    "amp": "precision mixedprecision half fp16 bf16 dtype useamp autocast",
    "pre": "augment augmentation augmentations aug transform transforms preprocessing preprocess"
    " autoaugment aa dataaugmentation",
    "resume": "ckpt checkpoint restore resumefrom resumefromcheckpoint continue ckptpath load"
    " resumepath",
    "test_net": "test eval evaluate evaluation testonly evalonly testmodel",
    "val_split": "val validation valid validationsplit valfraction valratio valsize valpercent"
    " valfrac validationfraction validationratio",
    "test_split": "testsize testratio testfraction testfrac testpercent holdout",
    "warmup": "warmupepochs numwarmupepochs warmupsteps lrwarmupepochs",
    "decay": "gamma lrdecay lrgamma decayrate decayfactor lrdecayrate lrfactor",
    "train_samples": "maxsamples limittrain numsamples ntrain trainsize maxtrainsamples subset"
    " limittrainbatches samples nsamples",
    "freeze": "freezebackbone frozen freezelayers freezeencoder freezetrunk unfreeze freezefeatures"
    " linearprobe",
    "dropout": "drop droprate dropoutrate dropoutprob pdrop dropoutp",
    "label_smoothing": "smoothing labelsmooth smooth",
    "ema": "emadecay modelema useema swa",
    "lr_trunk": "backbonelr lrbackbone trunklr lrmult lrmultiplier encoderlr discriminativelr"
    " lrencoder layerdecay llrd",
    "loss": "criterion lossfn lossfunction lossname objective",
    "momentum": "sgdmomentum beta mom",
    "initial_epoch": "startepoch firstepoch epochstart",
    "crop_bottom": "bottomcrop cropbottompixels",
    "cache_dir": "cachepath cachefolder",
    "wandb": "usewandb nowandb wandbmode tracker logger reportto",
    "dry_run": "dryrun describe checkdata",
    "task": "problem problemtype tasktype",
    "study": "target targetcolumn labelcolumn scorecolumn column label labels score",
    "scores": "csv csvfile csvpath annotations annotationfile labelfile labelsfile ratings"
    " scoresfile ratingsfile table",
    "image_column": "imagecol imagecolumnname filenamecolumn picturecolumn xcol",
    "rater_column": "rater raters annotator annotatorcolumn participant participantcolumn",
    "keep": "classes classlist keepclasses",
    "hidden": "hiddensize hiddenunits hiddendim",
    "strict_data": "strict",
    "workers": "numworkers nworkers jobs njobs parallel numjobs maxworkers",
    "count": "ntrials numtrials maxtrials trials numruns maxruns n",
    "retries": "retry maxretries",
    # Verbs.
    "check": "validate lint verify",
    "report": "compare leaderboard results show list ls",
    "fetch": "download get",
    "sweep": "search tune hpo hyperopt optimize optimise gridsearch",
    # Metrics.
    "precision@1_val": "accuracyval valaccuracy accval valacc accuracy acc top1 top1val valtop1"
    " accuracytop1 validationaccuracy top1accuracy",
    "precision@5_val": "top5 top5val valtop5 top5accuracy top5acc",
    "loss_val": "validationloss evalloss testloss",
    "pearson_val": "correlation corr plcc",
    "spearman_val": "srcc",
    "kendall_val": "krcc",
    # Values.
    "default": "imagenet standard none normal centercrop centrecrop center resizecrop",
    "adam": "adamax nadam amsgrad",
    "sgd": "sgdm nesterov momentumsgd stochasticgradientdescent",
    "cosine": "cosineannealing cosineannealinglr coslr cosinelr cosinedecay cos cosineschedule"
    " cosineannealingwarmrestarts",
    "constant": "none fixed const constantlr flat off",
    "step": "steplr multistep multisteplr stepdecay",
    "plateau": "reducelronplateau reduceonplateau reduceplateau",
    "onecycle": "onecyclelr 1cycle cyclic",
    "hyperbolic": "inverse inversetime inversedecay timedecay",
    "cuda": "gpu nvidia 0",
    "fp16": "float16 half 16 16mixed",
    "bf16": "bfloat16 bf16mixed",
    "off": "fp32 float32 32 full none no false disabled disable 0",
    "mse": "l2 mseloss meansquarederror",
    "huber": "smoothl1 smoothl1loss huberloss l1 mae",
    "trivial": "trivialaugment trivialaugmentwide autoaugment",
    "randaug": "randaugment ra",
    "colour": "color colorjitter colourjitter jitter",
    "squash": "stretch warp resize",
    "trunk": "backbone all encoder features true",
    "imagenet": "pretrained imagenet1k default true imagenet1kv1 imagenet1kv2",
    "none": "random scratch false no off null",
    "maximize": "max maximise maximum higher up",
    "minimize": "min minimise minimum lower down",
    "bayes": "bayesian bayesianoptimization bo tpe gp",
    "perception": "regression score scores placepulse",
    "folders": "classification folder imagefolder places365 classes",
}
# Our names by the name of another program: options come first, then values.
SYNONYMS: dict[str, tuple[str, ...]] = {}
for _ours, _others in _BY_NAME.items():
    for _other in _others.split():
        SYNONYMS[_other] = (*SYNONYMS.get(_other, ()), _ours)
